"""A run's directory: lock, checkpoints, mirror in storage, provenance."""
