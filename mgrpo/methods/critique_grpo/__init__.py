"""Critique-GRPO (arXiv 2506.03106)."""

PLUGINS = {"refined_group": "refined_group:RefinedGroup"}
