"""Programs that `make` runs: they need nothing but a Python of the machine's own."""
