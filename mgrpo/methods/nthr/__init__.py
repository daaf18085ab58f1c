"""NTHR (arXiv 2505.18830)."""

PLUGINS = {"nthr": "plugin:Nthr"}
