"""GPG (arXiv 2504.02546)."""

ADVANTAGES = {"gpg": "plugin:Gpg"}
