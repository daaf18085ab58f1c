"""mgrpo as a library: `mgrpo.train` and `mgrpo.Run`. The command line uses the same functions."""

from mgrpo.library.run import Run
from mgrpo.library.start import train

__all__ = ["Run", "train"]
