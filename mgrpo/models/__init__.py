"""Policies: names, files, checks of their weights, and the shipped one."""
