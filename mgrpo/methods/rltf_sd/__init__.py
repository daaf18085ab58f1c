"""RLTF-SD (arXiv 2602.02482)."""

PLUGINS = {"self_distillation": "self_distillation:SelfDistillation"}
