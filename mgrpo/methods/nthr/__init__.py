"""NTHR (arXiv 2505.18830)."""

PLUGINS = {
    "nthr": "plugin:Nthr",
    "likelihood_change": "likelihood_change:LikelihoodChange",
}
