"""Comparison of methods under one budget of sampled completions, in resumable parts.

python -m benchmarks.study --list      what is done and what is left
python -m benchmarks.study --write     do what is left, then write docs/results/methods.md
"""
