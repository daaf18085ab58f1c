LOSSES = {"gmpo": "plugin:Gmpo"}
