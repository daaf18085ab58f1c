"""Reward terms that a service answers: HTTP servers, LLM judges, reward models."""
