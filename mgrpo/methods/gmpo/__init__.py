PLUGINS = {"gmpo": "plugin:Gmpo"}
