"""SCoRe (arXiv 2409.12917)."""

PLUGINS = {"correction_bonus": "correction_bonus:CorrectionBonus"}
