LOSSES = {"cispo": "plugin:Cispo"}
