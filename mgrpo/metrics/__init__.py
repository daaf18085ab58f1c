"""What a run measures, the changes between turns, and alerts."""
