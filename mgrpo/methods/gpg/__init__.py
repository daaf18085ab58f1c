"""GPG (arXiv 2504.02546)."""

PLUGINS = {"gpg": "plugin:Gpg"}
