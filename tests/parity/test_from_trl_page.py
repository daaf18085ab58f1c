"""What docs/guides/from_trl.md says of TRL's keywords and defaults is so in the installed TRL."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL is not in this environment; run: make test-parity")

import trl
from trl import GRPOConfig

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "from_trl.md").read_text(encoding="utf-8")
TRAINER = {"reward_funcs", "eval_dataset", "peft_config"}  # arguments of GRPOTrainer
DEFAULTS = {field.name: field.default for field in fields(GRPOConfig)}


def test_the_page_is_about_the_installed_version():
    assert f"TRL {'.'.join(trl.__version__.split('.')[:2])}" in PAGE


def test_every_keyword_of_the_table_is_one_of_trls():
    table = PAGE.partition("## Key by key")[2].partition("## What differs")[0]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"GRPOConfig"}
    assert len(named) > 30
    assert named - TRAINER <= DEFAULTS.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss_type", "dapo"),
        ("scale_rewards", "group"),
        ("beta", 0.0),
        ("epsilon", 0.2),
        ("num_iterations", 1),
        ("max_completion_length", 512),
        ("temperature", 1.0),
        ("use_bias_correction_kl", True),
        ("vllm_importance_sampling_mode", "sequence_mask"),
        ("vllm_importance_sampling_clip_max", 3.0),
        ("lr_scheduler_type", "linear"),
        ("adam_beta1", 0.9),
        ("adam_beta2", 0.999),
        ("learning_rate", 1e-6),
    ],
)
def test_defaults_are_as_the_page_has_them(name, value):
    assert DEFAULTS[name] == value
