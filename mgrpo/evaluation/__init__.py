"""Held-out accuracy: sampling, statistics, comparison, tables."""
