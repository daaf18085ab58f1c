"""RLOO (arXiv 2402.14740)."""

PLUGINS = {"rloo": "plugin:Rloo"}
