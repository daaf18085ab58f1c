"""SPOC (arXiv 2506.06923)."""

PLUGINS = {"best_trajectory": "best_trajectory:BestTrajectory"}
