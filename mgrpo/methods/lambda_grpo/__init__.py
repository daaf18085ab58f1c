PLUGINS = {"lambda_grpo": "plugin:LambdaGrpo"}
