"""REINFORCE++ (arXiv 2501.03262)."""

PLUGINS = {"reinforce_plus_plus": "plugin:ReinforcePlusPlus"}
