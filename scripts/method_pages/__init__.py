"""Writes the generated parts of the methods' pages, their index and their figures."""
