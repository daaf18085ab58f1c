"""Parts of the records that travel between rooms (`mgrpo.types`): turns, prompts, token columns."""
