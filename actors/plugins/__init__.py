"""Our rollout plug-ins, one per file."""
