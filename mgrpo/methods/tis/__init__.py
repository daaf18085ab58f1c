"""GRPO with truncated importance sampling."""

PLUGINS = {"mismatch_correction": "mismatch_correction:MismatchCorrection"}
