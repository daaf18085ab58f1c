PLUGINS = {"raft": "plugin:Raft"}
