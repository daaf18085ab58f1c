PLUGINS = {"disco": "plugin:Disco"}
