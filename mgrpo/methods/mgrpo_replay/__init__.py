"""MGRPO with replayed corrections."""

SOURCES = {"correction_buffer": "source:ReplayedCorrections"}
