"""Where problems are read from: one file per kind of source."""
