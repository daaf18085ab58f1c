PLUGINS = {"kl_cov": "plugin:KlCov"}
