"""Layouts that tests put a shipped recipe into."""

from __future__ import annotations

ENGINES_PER_LAYER = (
    "engines.shared=false",
    "engines.num_shared_engines=1",
    "layers.solve.num_engines=2",
    "layers.correct.num_engines=2",
    "learner.num_ranks=4",
    "pipeline.max_staleness_steps=auto",
)
"""Of qwen2.5_math_7b on eight GPUs: every layer and the learner have GPUs of their own."""
