"""AGRO (arXiv 2212.00921)."""

PLUGINS = {"agro": "plugin:Agro"}
