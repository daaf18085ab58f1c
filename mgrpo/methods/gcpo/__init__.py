"""GCPO (arXiv 2508.05428)."""

PLUGINS = {
    "gcpo": "plugin:Gcpo",
    "integrated_answers": "integrated_answers:IntegratedAnswers",
}
