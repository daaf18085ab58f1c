"""CISPO (arXiv 2506.13585)."""

PLUGINS = {"cispo": "plugin:Cispo"}
