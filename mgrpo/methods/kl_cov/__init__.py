LOSSES = {"kl_cov": "plugin:KlCov"}
