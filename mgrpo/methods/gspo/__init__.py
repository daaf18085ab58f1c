LOSSES = {"gspo": "plugin:Gspo"}
