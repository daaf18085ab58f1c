"""DisCO (arXiv 2505.12366)."""

PLUGINS = {"disco": "plugin:Disco"}
