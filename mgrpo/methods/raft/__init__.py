"""RAFT (arXiv 2504.11343)."""

PLUGINS = {"raft": "plugin:Raft"}
