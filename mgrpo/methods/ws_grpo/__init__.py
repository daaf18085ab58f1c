"""WS-GRPO (arXiv 2602.17025)."""

PLUGINS = {
    "prefix_preference": "prefix_preference:PrefixPreference",
    "step_spans": "step_spans:StepSpans",
}
