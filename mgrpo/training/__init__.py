"""The training loop and what it is assembled from; read `loop.py` first."""
