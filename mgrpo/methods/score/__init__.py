PLUGINS = {"correction_bonus": "correction_bonus:CorrectionBonus"}
