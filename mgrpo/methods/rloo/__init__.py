ADVANTAGES = {"rloo": "plugin:Rloo"}
