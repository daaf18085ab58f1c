"""The work of the step-time benchmark is a recipe that starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.workload import PROFILES, build_model, byte_tokenizer, recipe, write_workload
from mgrpo.cli import main
from mgrpo.config import RunConfig


@pytest.mark.parametrize("profile", ["smoke", "smoke_mgrpo"])
def test_the_workload_s_recipe_passes_the_check(
    profile: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_workload(PROFILES[profile], 3, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["check", "recipe.yaml"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("profile", PROFILES)
def test_every_workload_is_a_recipe(profile: str, tmp_path: Path) -> None:
    RunConfig.model_validate(recipe(PROFILES[profile], 3, tmp_path))


def test_completions_end_as_often_as_is_asked() -> None:
    tokenizer = byte_tokenizer()
    for mean_tokens in (None, 8, 48):
        profile = replace(PROFILES["smoke"], mean_tokens=mean_tokens)
        model = build_model(profile, tokenizer)
        torch.manual_seed(5)
        prompt = torch.randint(3, len(tokenizer), (256, 16))
        logits = model(prompt).logits[:, -1].detach()
        ends = float(logits.softmax(-1)[:, tokenizer.eos_token_id].mean())
        assert ends == pytest.approx(
            0 if mean_tokens is None else 1 / mean_tokens, rel=0.1, abs=1e-9
        )
