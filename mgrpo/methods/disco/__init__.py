"""DisCO (arXiv 2505.12366)."""

LOSSES = {"disco": "plugin:Disco"}
