"""GSPO (arXiv 2507.18071)."""

LOSSES = {"gspo": "plugin:Gspo"}
