"""CAL-GRPO (arXiv 2604.17912)."""

PLUGINS = {"attempt_weights": "attempt_weights:AttemptWeights"}
