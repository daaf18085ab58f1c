LOSSES = {"disco": "plugin:Disco"}
