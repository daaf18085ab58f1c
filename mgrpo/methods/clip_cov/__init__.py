PLUGINS = {"clip_cov": "plugin:ClipCov"}
