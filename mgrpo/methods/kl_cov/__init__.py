"""KL-Cov (arXiv 2505.22617)."""

LOSSES = {"kl_cov": "plugin:KlCov"}
