PLUGINS = {
    "gcpo": "plugin:Gcpo",
    "integrated_answers": "integrated_answers:IntegratedAnswers",
}
