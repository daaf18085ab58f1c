PLUGINS = {"gpg": "plugin:Gpg"}
