"""Scored groups in, a better policy out: advantages, losses, packing, the optimizer step."""
