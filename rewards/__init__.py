"""Completion text in, a number and its reasons out."""
