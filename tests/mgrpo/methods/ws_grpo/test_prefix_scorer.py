"""A scorer's values, its step scores, and its folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaForCausalLM

from mgrpo.errors import ModelError, RunDirectoryError
from mgrpo.methods.ws_grpo.hidden_states import similar_batches
from mgrpo.methods.ws_grpo.prefix_scorer import PrefixScorer
from tests.learner.builders import save_tiny_llama

KINDS = ["mlp_on_embeddings", "reward_head"]
PROMPT, COMPLETION, ENDS = [5, 9, 3], [7, 7, 1, 30, 22, 2], [2, 3, 6]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


def new_scorer(model_dir: Path, kind: str = "mlp_on_embeddings", **changes) -> PrefixScorer:
    return PrefixScorer.create(str(model_dir), kind=kind, hidden_units=16, **changes)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# --- values ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_is_the_heads_of_the_last_hidden_state(model_dir, kind):
    scorer = new_scorer(model_dir, kind)
    model = LlamaForCausalLM.from_pretrained(model_dir).eval()
    with torch.no_grad():
        outputs = model(torch.tensor([PROMPT]), output_hidden_states=True)
        expected = scorer.head(outputs.hidden_states[-1][0, -1])
    assert_close(scorer.values([PROMPT]), expected)


def test_batches_and_padding_change_no_value_and_no_order(model_dir):
    scorer = new_scorer(model_dir)
    sequences = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [10, 11], [1, 2, 3, 4, 5, 6, 7]]
    alone = torch.cat([scorer.values([sequence]) for sequence in sequences])
    assert len(set(alone.tolist())) == len(sequences)
    for batch_tokens in (1, 6, 10, 1000):
        assert_close(scorer.values(sequences, batch_tokens=batch_tokens), alone)
    assert_close(scorer(sequences), alone)


def test_values_of_prefixes_come_from_the_whole_text(model_dir):
    scorer = new_scorer(model_dir)
    prefixes = [[5], [5, 9], [7, 7, 1]]
    assert_close(scorer([[5, 9, 3], [7, 7, 1]], [[0, 1], [2]]), scorer.values(prefixes))


def test_no_sequences_have_no_values(model_dir):
    assert new_scorer(model_dir).values([]).shape == (0,)


def test_batches_are_of_similar_length_and_keep_to_their_tokens():
    # Longest first: 9 alone is over 8; 4 and 3 take 2 x 4; 2 and 1 take 2 x 2.
    assert similar_batches([3, 9, 1, 4, 2], 8) == [[1], [3, 0], [4, 2]]


def test_only_what_is_trained_has_gradients(model_dir):
    frozen, trained = (new_scorer(model_dir, kind) for kind in KINDS)
    names = {name for name, p in frozen.named_parameters() if p.requires_grad}
    assert names == {"head.1.weight", "head.1.bias", "head.3.weight", "head.3.bias"}
    trained([PROMPT]).sum().backward()
    without = {name for name, p in trained.named_parameters() if p.grad is None}
    assert without == {"policy.causal_lm.lm_head.weight"}  # no part of a value


def test_the_seed_makes_the_head_and_leaves_the_callers_generator_alone(model_dir):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, same, other = (new_scorer(model_dir, seed=seed).values([PROMPT]) for seed in (0, 0, 1))
    assert torch.rand(1) == expected
    assert one == same
    assert one != other


# --- steps ---


@pytest.mark.parametrize("kind", KINDS)
def test_one_forward_gives_the_scores_of_a_forward_per_prefix(model_dir, kind):
    scorer = new_scorer(model_dir, kind)
    values = [float(scorer.values([PROMPT + COMPLETION[:end]])[0]) for end in (0, *ENDS)]
    expected = [sigmoid(values[t] - values[t - 1]) for t in (1, 2, 3)]
    scores = scorer.step_scores(PROMPT, COMPLETION, ENDS)
    assert_close(scores, torch.tensor(expected), atol=1e-5, rtol=0)
    assert max(abs(score - 0.5) for score in expected) > 0.01  # there is something to compare


def test_the_other_pair_order_gives_the_other_probability(model_dir):
    scorer = new_scorer(model_dir)
    helped = scorer.step_scores(PROMPT, COMPLETION, ENDS, pair_order="shorter_longer")
    better_without = scorer.step_scores(PROMPT, COMPLETION, ENDS, pair_order="longer_shorter")
    assert_close(helped + better_without, torch.ones(3))


def test_a_step_without_tokens_changes_nothing(model_dir):
    scores = new_scorer(model_dir).step_scores(PROMPT, COMPLETION, [2, 2, 6])
    assert scores[1] == 0.5


def test_many_completions_are_scored_as_each_alone(model_dir):
    scorer = new_scorer(model_dir)
    rows = [(PROMPT, COMPLETION, ENDS), ([8], [4, 4], [2]), (PROMPT, COMPLETION[:4], [1, 4])]
    together = scorer.step_scores_of(rows, batch_tokens=18)
    assert [len(scores) for scores in together] == [3, 1, 2]
    for row, scores in zip(rows, together, strict=True):
        assert_close(scores, scorer.step_scores(*row))


@pytest.mark.parametrize("ends", [[3, 2], [7], [-1, 2]])
def test_step_ends_outside_the_completion_are_refused(model_dir, ends):
    with pytest.raises(ValueError, match="do not rise"):
        new_scorer(model_dir).step_scores(PROMPT, COMPLETION, ends)


def test_an_empty_prompt_is_refused(model_dir):
    with pytest.raises(ValueError, match="prompt without tokens"):
        new_scorer(model_dir).step_scores([], COMPLETION, ENDS)


# --- the folder ---


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_scorer_is_read_back_as_it_was(tmp_path, kind, tied):
    model_dir = save_tiny_llama(tmp_path / "model", tie_word_embeddings=tied)
    scorer = new_scorer(model_dir, kind, base_model="tiny")
    if kind == "reward_head":  # as training would
        with torch.no_grad():
            for parameter in scorer.decoder.parameters():
                parameter += 0.01
    scorer.save(tmp_path / "scorer")
    again = PrefixScorer.load(tmp_path / "scorer")
    sequences = [PROMPT, COMPLETION]
    assert torch.equal(again.values(sequences), scorer.values(sequences))
    assert (again.kind, again.base_model) == (kind, "tiny")
    assert (tmp_path / "scorer" / "backbone").is_dir() == (kind == "reward_head")
    again.save(tmp_path / "copy")
    assert PrefixScorer.load(tmp_path / "copy").values([PROMPT]) == scorer.values([PROMPT])


def test_a_moved_base_model_is_found_where_it_is_said_to_be(tmp_path):
    model_dir = save_tiny_llama(tmp_path / "model")
    scorer = new_scorer(model_dir, base_model="tiny")
    scorer.save(tmp_path / "scorer")
    model_dir.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="needs the model tiny"):
        PrefixScorer.load(tmp_path / "scorer")
    again = PrefixScorer.load(tmp_path / "scorer", base_dir=str(tmp_path / "moved"))
    assert again.values([PROMPT]) == scorer.values([PROMPT])


def test_other_weights_of_the_base_model_are_noticed(tmp_path, model_dir):
    new_scorer(model_dir).save(tmp_path / "scorer")
    other = save_tiny_llama(tmp_path / "other", initializer_range=0.3)
    with pytest.raises(ModelError, match="trained on other weights"):
        PrefixScorer.load(tmp_path / "scorer", base_dir=str(other))


def test_a_base_model_of_another_size_is_noticed(tmp_path, model_dir):
    new_scorer(model_dir).save(tmp_path / "scorer")
    other = save_tiny_llama(tmp_path / "other", hidden_size=64)
    with pytest.raises(ModelError, match="hidden size is 64"):
        PrefixScorer.load(tmp_path / "scorer", base_dir=str(other))


def test_half_precision_gives_nearly_the_same_scores(tmp_path, model_dir):
    scorer = new_scorer(model_dir)
    scorer.save(tmp_path / "scorer")
    half = PrefixScorer.load(tmp_path / "scorer", dtype=torch.bfloat16)
    assert next(half.policy.parameters()).dtype == torch.bfloat16
    row = (PROMPT, COMPLETION, ENDS)
    assert_close(half.step_scores(*row), scorer.step_scores(*row), atol=0.03, rtol=0)


def test_nothing_is_replaced_by_a_scorer(tmp_path, model_dir):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(RunDirectoryError, match="would have to be replaced"):
        new_scorer(model_dir).save(tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    new_scorer(model_dir).save(tmp_path / "empty")
    assert (tmp_path / "empty" / "config.json").is_file()


def test_half_a_scorer_is_never_seen(tmp_path, model_dir, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mgrpo.methods.ws_grpo.prefix_scorer.write_scorer_config", full_disk)
    with pytest.raises(RunDirectoryError, match="No space left"):
        new_scorer(model_dir).save(tmp_path / "deep" / "scorer")
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "no prefix scorer in"),
        ("not json", "no prefix scorer in"),
        ({"format": "something else"}, "does not describe a prefix scorer"),
        ({"probe_value": None}, "lacks probe_value"),
        ({"kind": "forest"}, "has the kind 'forest'"),
    ],
)
def test_a_folder_that_is_no_scorer_is_refused(tmp_path, model_dir, change, message):
    folder = tmp_path / "scorer"
    new_scorer(model_dir).save(folder)
    path = folder / "config.json"
    if change is None:
        path.unlink()
    elif isinstance(change, str):
        path.write_text(change)
    else:
        values = {**json.loads(path.read_text()), **change}
        kept = {name: value for name, value in values.items() if value is not None}
        path.write_text(json.dumps(kept))
    with pytest.raises(ModelError, match=message):
        PrefixScorer.load(folder)


def test_a_head_that_is_not_safetensors_is_refused(tmp_path, model_dir):
    folder = tmp_path / "scorer"
    new_scorer(model_dir).save(folder)
    (folder / "scorer.safetensors").write_bytes(b"pickled, perhaps")
    with pytest.raises(ModelError, match=r"scorer\.safetensors cannot be used"):
        PrefixScorer.load(folder)
