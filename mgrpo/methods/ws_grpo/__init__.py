PLUGINS = {
    "prefix_preference": "prefix_preference:PrefixPreference",
    "step_spans": "step_spans:StepSpans",
}
