"""GMPO (arXiv 2507.20673)."""

PLUGINS = {"gmpo": "plugin:Gmpo"}
