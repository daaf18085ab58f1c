"""mgrpo: train language models to reason and to correct themselves.

Light on purpose: importing it is fast, so that `mgrpo --help` answers at once.
"""

from mgrpo.rooms import keep_rooms

__version__ = "0.1.0"

keep_rooms()
