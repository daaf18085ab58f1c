"""VerIPO (arXiv 2505.19000)."""

PLUGINS = {"dpo": "dpo:Dpo"}
SOURCES = {"preferences": "source:PreferencePhases"}
