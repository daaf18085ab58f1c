PLUGINS = {"agro": "plugin:Agro"}
