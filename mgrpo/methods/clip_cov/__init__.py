"""Clip-Cov (arXiv 2505.22617)."""

PLUGINS = {"clip_cov": "plugin:ClipCov"}
