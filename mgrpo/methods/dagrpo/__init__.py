"""DaGRPO (arXiv 2512.06337)."""

PLUGINS = {"expert_anchor": "expert_anchor:ExpertAnchor"}
ADVANTAGES = {"dagrpo": "plugin:Dagrpo"}
LOSSES = {"shaped_probability": "shaped_probability:ShapedProbability"}
