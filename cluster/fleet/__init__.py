"""The engines of a run: their processes, health, retries, scaling and load."""
