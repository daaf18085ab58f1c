"""RLOO (arXiv 2402.14740)."""

ADVANTAGES = {"rloo": "plugin:Rloo"}
