"""The version of this program, read by its build without importing anything."""

__version__ = "0.1.0"
