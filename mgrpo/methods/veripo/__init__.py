PLUGINS = {"dpo": "dpo:Dpo"}
