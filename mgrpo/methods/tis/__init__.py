IMPORTANCE = {"mismatch_correction": "mismatch_correction:MismatchCorrection"}
