"""CISPO (arXiv 2506.13585)."""

LOSSES = {"cispo": "plugin:Cispo"}
