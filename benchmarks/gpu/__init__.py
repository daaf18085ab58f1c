"""What one GPU makes of an update, of TRL's, and of a step of MGRPO; see `__main__`."""
