"""Prompts in, completions out: rollout engines and what keeps them busy."""
