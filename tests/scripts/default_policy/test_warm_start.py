import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.default_policy.tiny_tokenizer import train_tokenizer
from scripts.default_policy.warm_start import (
    IGNORED,
    completion_loss,
    learning_rate_factor,
    padded,
    untrained_model,
    warm_start,
)
from scripts.default_policy.warm_start_corpus import Example

SHORT = Example(prompt_ids=[5, 6], completion_ids=[7, 8])
LONG = Example(prompt_ids=[9, 10, 11], completion_ids=[12, 13, 14])


@pytest.fixture(autouse=True)
def one_thread():
    """The batches are too small for more, and threads that wait for each other take minutes."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def small_run(folder, seed=0):
    return warm_start(
        folder, seed=seed, steps=30, batch_size=4, num_tokenizer_questions=50, report=lambda _: None
    )


@pytest.mark.slow
def test_a_short_training_lowers_the_loss_and_is_repeatable_by_seed(tmp_path):
    losses = small_run(tmp_path / "a")
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])

    assert small_run(tmp_path / "b") == losses
    assert small_run(tmp_path / "c", seed=1) != losses
    weights, again = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(weights[name], again[name]) for name in weights)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_only_completions_carry_labels_and_padding_is_on_the_right():
    input_ids, labels = padded([SHORT, LONG], pad_id=0)
    assert input_ids.tolist() == [[5, 6, 7, 8, 0, 0], [9, 10, 11, 12, 13, 14]]
    none = IGNORED
    assert labels.tolist() == [[none, none, 7, 8, none, none], [none] * 3 + [12, 13, 14]]


def test_padding_does_not_change_a_batchs_loss():
    model = untrained_model(train_tokenizer(["1+1=2"]), seed=0)
    together = completion_loss(model, [SHORT, LONG], pad_id=0)
    short, long = (completion_loss(model, [example], pad_id=0) for example in (SHORT, LONG))
    # Means over 2 and 3 tokens; bfloat16 activations leave a small difference.
    torch.testing.assert_close(together, (2 * short + 3 * long) / 5, rtol=2e-2, atol=0)


def test_the_learning_rate_rises_then_falls_to_zero():
    assert learning_rate_factor(0, 1000) < 0.02
    assert learning_rate_factor(100, 1000) > 0.97
    assert learning_rate_factor(1000, 1000) < 1e-9
