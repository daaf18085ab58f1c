"""REINFORCE++ (arXiv 2501.03262)."""

ADVANTAGES = {"reinforce_plus_plus": "plugin:ReinforcePlusPlus"}
