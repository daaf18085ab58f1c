"""RAFT (arXiv 2504.11343)."""

ADVANTAGES = {"raft": "plugin:Raft"}
