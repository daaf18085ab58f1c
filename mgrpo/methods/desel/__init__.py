"""DeSel (arXiv 2310.06374)."""

PLUGINS = {
    "desel": "plugin:Desel",
    "greedy_anchor": "greedy_anchor:GreedyAnchor",
}
