"""λ-GRPO (arXiv 2509.21154)."""

PLUGINS = {"lambda_grpo": "plugin:LambdaGrpo"}
