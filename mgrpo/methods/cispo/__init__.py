PLUGINS = {"cispo": "plugin:Cispo"}
