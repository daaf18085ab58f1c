PLUGINS = {"lead": "plugin:Lead"}
