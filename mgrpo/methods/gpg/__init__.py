ADVANTAGES = {"gpg": "plugin:Gpg"}
