PLUGINS = {"unlikeliness": "plugin:Unlikeliness"}
