PLUGINS = {"rloo": "plugin:Rloo"}
