"""KL-Cov (arXiv 2505.22617)."""

PLUGINS = {"kl_cov": "plugin:KlCov"}
