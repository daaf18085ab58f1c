PLUGINS = {"mismatch_correction": "mismatch_correction:MismatchCorrection"}
