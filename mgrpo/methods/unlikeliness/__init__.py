"""Unlikeliness reward (arXiv 2506.02355)."""

PLUGINS = {"unlikeliness": "plugin:Unlikeliness"}
