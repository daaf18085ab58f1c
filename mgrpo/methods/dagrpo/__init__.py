"""DaGRPO (arXiv 2512.06337)."""

PLUGINS = {
    "dagrpo": "plugin:Dagrpo",
    "expert_anchor": "expert_anchor:ExpertAnchor",
}
