"""Readers of problems: one file per kind of source."""
