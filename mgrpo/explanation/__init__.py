"""What a recipe does to recorded completions, token by token."""
