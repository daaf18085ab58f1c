"""DAPO (arXiv 2503.14476)."""

PLUGINS = {"overlong_penalty": "overlong_penalty:OverlongPenalty"}
SOURCES = {"dynamic": "dynamic_sampling:DynamicSampling"}
