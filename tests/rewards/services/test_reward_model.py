"""A sequence classifier as a reward term: a random one of the shipped policy's architecture."""

import json
import shutil

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from mgrpo.config.rewards import RewardsConfig
from mgrpo.config.services import ModelTerm
from mgrpo.errors import RewardError
from mgrpo.models.catalog import SHIPPED_DEFAULT_DIR
from mgrpo.types import Problem
from rewards.conventions import Group
from rewards.pool import RewardPool
from rewards.services.reward_model import RewardModel

SEVEN = Problem(problem_id="seven", question="What is 3 + 4?", answer="7")
TEXTS = ["7", "It could be 8, since 3 + 4 = 8", "\\boxed{7}", "I do not know at all"]


def save_classifier(folder, num_labels):
    torch.manual_seed(num_labels)
    config = AutoConfig.from_pretrained(SHIPPED_DEFAULT_DIR, num_labels=num_labels)
    model = AutoModelForSequenceClassification.from_config(config)
    torch.nn.init.normal_(model.score.weight)  # else all values are nearly equal
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(SHIPPED_DEFAULT_DIR).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def scorer_dir(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("scorer"), 1)


@pytest.fixture(scope="module")
def classifier_dir(tmp_path_factory):
    return save_classifier(tmp_path_factory.mktemp("classifier"), 2)


def term_of(folder, **keys):
    return ModelTerm.model_validate({"model": str(folder), **keys})


def scored(folder, texts=TEXTS, **keys):
    return RewardModel(term_of(folder, **keys)).scored(
        Group(problem=SEVEN, texts=texts), lambda: None
    )


def logits_of(folder, text):
    """By transformers alone, as a model's card shows it."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": SEVEN.question}, {"role": "assistant", "content": text}]
    rows = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        return model(**rows).logits[0]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_values_are_the_model_s_whatever_the_batch(scorer_dir, batch_size):
    rewards = scored(scorer_dir, batch_size=batch_size, correct_at=0.0)
    expected = [logits_of(scorer_dir, text).item() for text in TEXTS]
    assert [one.value for one in rewards] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert [one.correct for one in rewards] == [value >= 0 for value in expected]
    assert len({round(value, 3) for value in expected}) == len(TEXTS)


def test_a_label_s_probability_is_the_value(classifier_dir):
    rewards = scored(classifier_dir, label="LABEL_1", input="pair")
    assert all(0 < one.value < 1 for one in rewards)
    (chat,) = scored(classifier_dir, TEXTS[:1], label="LABEL_1")
    expected = logits_of(classifier_dir, TEXTS[0]).softmax(-1)[1].item()
    assert chat.value == pytest.approx(expected, rel=1e-4)


def test_a_cross_encoder_reads_question_and_completion_as_two_segments(tmp_path):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=512,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=1,
    )
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(
        SHIPPED_DEFAULT_DIR, model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    ).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        pairs = (tokenizer(SEVEN.question, text, return_tensors="pt") for text in TEXTS)
        expected = [model(**pair).logits.item() for pair in pairs]
    assert 1 in tokenizer(SEVEN.question, TEXTS[0])["token_type_ids"]
    rewards = scored(tmp_path, input="pair", batch_size=3)
    assert [one.value for one in rewards] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_what_does_not_fit_the_model_is_an_error_of_that_completion(scorer_dir):
    long, short = scored(scorer_dir, ["7 " * 5000, "7"])
    assert (long.status, short.status) == ("error", "scored")
    assert "tokens, and" in long.detail and "max_completion_tokens" in long.detail


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"label": "good"}, "one output"),
        ({"revision": "v2"}, "revision has no effect"),
        ({"device": "cuda:99"}, "cannot be loaded on cuda:99"),
    ],
)
def test_a_term_that_does_not_fit_is_refused(scorer_dir, keys, why):
    with pytest.raises(RewardError, match=why):
        RewardModel(term_of(scorer_dir, **keys))


def test_the_labels_are_named(classifier_dir):
    with pytest.raises(RewardError, match=r"labels LABEL_0, LABEL_1: set `label`"):
        RewardModel(term_of(classifier_dir))


def test_a_policy_is_no_reward_model():
    with pytest.raises(RewardError, match=r"missing, and would be random: score\.weight"):
        RewardModel(term_of(SHIPPED_DEFAULT_DIR))


def test_a_model_that_is_not_there_and_one_without_a_template_are_refused(scorer_dir, tmp_path):
    with pytest.raises(RewardError, match="There is no folder"):
        RewardModel(term_of(tmp_path / "nothing"))
    plain = shutil.copytree(scorer_dir, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((plain / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (plain / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(RewardError, match=r"has no chat template\. Set `input: pair`"):
        RewardModel(term_of(plain))
    assert scored(plain, input="pair")[0].is_usable


@pytest.mark.slow
def test_it_has_a_process_of_its_own_in_a_pool(scorer_dir):
    terms = [{"check": "math_answer"}, {"model": str(scorer_dir), "weight": 0.1}]
    config = RewardsConfig.model_validate(
        {"terms": terms, "num_processes": 1, "start_deadline_s": 240}
    )
    with RewardPool(config) as pool:
        futures = [pool.submit(SEVEN, TEXTS) for _ in range(4)]
        groups = [future.result(timeout=240) for future in futures]
    expected = [logits_of(scorer_dir, text).item() for text in TEXTS]
    for rewards in groups:
        assert [one.parts["model"] for one in rewards] == pytest.approx(expected, rel=1e-4)
    assert groups[0][2].correct and not groups[0][0].correct
