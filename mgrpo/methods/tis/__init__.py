"""GRPO with truncated importance sampling."""

IMPORTANCE = {"mismatch_correction": "mismatch_correction:MismatchCorrection"}
