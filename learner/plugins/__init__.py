"""Our learner plug-ins, one per file."""
