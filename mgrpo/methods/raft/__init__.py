ADVANTAGES = {"raft": "plugin:Raft"}
