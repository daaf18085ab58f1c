"""GRPO-LEAD (arXiv 2504.09696)."""

PLUGINS = {"lead": "plugin:Lead"}
