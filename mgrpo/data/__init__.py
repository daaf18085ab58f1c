"""Problems: where they come from, which are left out, in which order they are drawn."""
