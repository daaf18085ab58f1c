"""S2R (arXiv 2502.12853)."""

ADVANTAGES = {"s2r": "plugin:S2r"}
