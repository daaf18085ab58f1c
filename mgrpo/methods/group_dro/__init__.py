"""Group DRO (arXiv 1911.08731)."""

PLUGINS = {"group_dro": "plugin:GroupDro"}
