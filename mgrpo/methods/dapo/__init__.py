PLUGINS = {"overlong_penalty": "overlong_penalty:OverlongPenalty"}
