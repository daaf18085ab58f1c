PLUGINS = {"nthr": "plugin:Nthr"}
