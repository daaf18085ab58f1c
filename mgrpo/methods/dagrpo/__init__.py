PLUGINS = {
    "dagrpo": "plugin:Dagrpo",
    "expert_anchor": "expert_anchor:ExpertAnchor",
}
