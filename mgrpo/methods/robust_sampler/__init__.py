"""GDR-MDP as a sampler (arXiv 2210.12262)."""

SAMPLERS = {"robust": "plugin:RobustSampler"}
