"""Where things run: Ray, placement, weight broadcasts, deadlines."""
