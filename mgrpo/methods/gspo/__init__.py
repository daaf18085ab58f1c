PLUGINS = {"gspo": "plugin:Gspo"}
