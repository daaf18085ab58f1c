"""GMPO (arXiv 2507.20673)."""

LOSSES = {"gmpo": "plugin:Gmpo"}
