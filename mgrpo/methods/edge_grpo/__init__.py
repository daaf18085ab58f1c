"""EDGE-GRPO (arXiv 2507.21848)."""

PLUGINS = {
    "entropy_advantage": "entropy_advantage:EntropyAdvantage",
    "guided_error_correction": "guided_error_correction:GuidedErrorCorrection",
}
