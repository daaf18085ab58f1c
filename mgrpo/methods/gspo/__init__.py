"""GSPO (arXiv 2507.18071)."""

PLUGINS = {"gspo": "plugin:Gspo"}
