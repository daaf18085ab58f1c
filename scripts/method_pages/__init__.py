"""Writes every method's page from its recipe and docstrings."""
