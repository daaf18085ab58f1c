"""Rollouts: prompts, vLLM engines, layers."""
