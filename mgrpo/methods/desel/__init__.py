PLUGINS = {
    "desel": "plugin:Desel",
    "greedy_anchor": "greedy_anchor:GreedyAnchor",
}
