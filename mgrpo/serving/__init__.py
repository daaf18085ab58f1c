"""`mgrpo serve`: vLLM's OpenAI server over a run's policy, its corrections a second model."""
