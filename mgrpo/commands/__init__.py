"""One module per command of `mgrpo`."""
