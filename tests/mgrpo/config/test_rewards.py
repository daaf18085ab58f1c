"""Reward terms of each kind, as recipes write them."""

import pytest
from pydantic import ValidationError

from mgrpo.config.explain import explain
from mgrpo.config.load import load_recipe
from mgrpo.config.rewards import CheckTerm, RewardsConfig, TrlTerm
from mgrpo.errors import ConfigError


def terms_of(*terms):
    return RewardsConfig.model_validate({"terms": list(terms)}).terms


def fault_of(*terms):
    with pytest.raises(ValidationError) as caught:
        terms_of(*terms)
    return explain(caught.value, RewardsConfig)[0]


def test_a_term_is_told_by_its_one_key():
    check, trl = terms_of({"check": "format"}, {"trl": "./my.py:reward", "weight": 2})
    assert isinstance(check, CheckTerm) and isinstance(trl, TrlTerm)
    assert (check.function, check.correct_at) == ("format", 1.0)
    assert (trl.function, trl.correct_at, trl.KEY) == ("./my.py:reward", None, "trl")


def test_verl_and_openrlhf_have_names_for_their_functions():
    given = {"correct_at": 1}
    verl, own, openrlhf = terms_of(
        {"verl": "./my.py", **given}, {"verl": "my:f", **given}, {"openrlhf": "./my.py", **given}
    )
    assert verl.function == "./my.py:compute_score"
    assert own.function == "my:f"
    assert openrlhf.function == "./my.py:reward_func"


def test_terms_survive_being_written_and_read():
    config = RewardsConfig.model_validate(
        {"terms": [{"verl": "./my.py", "correct_at": 0.5}, {"check": "format", "correct_at": None}]}
    )
    assert RewardsConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("term", [{"weight": 2.0}, {"check": "format", "trl": "a:b"}, "format"])
def test_a_term_has_exactly_one_function(term):
    fault = fault_of(term)
    assert fault.path == "terms.0"
    assert "exactly one of the keys check, batch, trl, verl, openrlhf" in fault.reason


def test_a_key_of_another_kind_is_explained():
    fault = fault_of({"check": "format", "messages": True})
    assert fault.path == "terms.0.messages"
    assert fault.suggestion == "It belongs to entries with the key trl."
    assert "Did you mean weight?" in fault_of({"trl": "a:b", "wieght": 2}).suggestion


def test_a_function_is_named_with_its_file():
    fault = fault_of({"trl": "./my.py"})
    assert (fault.path, fault.value) == ("terms.0.trl", "./my.py")
    assert "module:function" in fault.reason


def test_some_term_must_say_what_is_right():
    fault = fault_of({"trl": "./my.py:reward"}, {"check": "format", "correct_at": None})
    assert fault.path == "terms.0.correct_at"
    assert "no term says which completions are right" in fault.reason
    terms_of({"trl": "./my.py:reward"}, {"check": "format"})


def test_functions_beside_the_recipe_are_found(tmp_path, monkeypatch):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "judge.py").touch()
    (folder / "one.yaml").write_text(
        "extends: quickstart\nrewards: {terms: [{verl: ./judge.py, correct_at: 1}]}\n"
    )
    monkeypatch.chdir(tmp_path)
    (term,) = load_recipe(folder / "one.yaml").rewards.terms
    assert term.function == "recipes/judge.py:compute_score"


def test_overrides_reach_a_term(tmp_path):
    config = load_recipe("quickstart", ["rewards.terms=[{trl: 'a:b', correct_at: 0.5}]"])
    assert config.rewards.terms[0].correct_at == 0.5
    with pytest.raises(ConfigError, match="exactly one of the keys"):
        load_recipe("quickstart", ["rewards.terms=[{tlr: 'a:b'}]"])


# Terms that a service answers

JUDGE = {"judge": "big", "url": "http://127.0.0.1:8001/v1"}


def test_services_are_told_by_their_key_and_have_names():
    terms = terms_of(
        {"http": "http://127.0.0.1:8000/score"},
        {**JUDGE, "name": "tone"},
        {"model": "./scorer"},
        {"check": "format"},
    )
    assert [term.function for term in terms] == ["http", "judge.tone", "model", "format"]
    assert [term.correct_at for term in terms] == [None, None, None, 1.0]
    config = RewardsConfig.model_validate({"terms": [term.model_dump() for term in terms]})
    assert config.terms == terms


@pytest.mark.parametrize(
    ("keys", "path", "said"),
    [
        ({"http": "127.0.0.1:8000"}, "http", "must be an address"),
        ({"http": "ftp://host/x"}, "http", "must be an address"),
        ({**JUDGE, "pattern": "(1)"}, "pattern", "no effect without verdict: pattern"),
        ({**JUDGE, "verdict": "pattern"}, "pattern", "is needed with verdict: pattern"),
        ({**JUDGE, "verdict": "pattern", "pattern": "("}, "pattern", "no regular expression"),
        ({**JUDGE, "verdict": "pattern", "pattern": "3"}, "pattern", "no group for the score"),
        ({**JUDGE, "prompt": "{answer} {completion}"}, "prompt", "unknown field {answer}"),
        ({**JUDGE, "prompt": "{completion.x}"}, "prompt", "unknown field {completion.x}"),
        ({**JUDGE, "prompt": "grade {question}"}, "prompt", "does not show the {completion}"),
        ({**JUDGE, "prompt": '{completion} {"a": 1}'}, "prompt", "unknown field"),
        ({**JUDGE, "prompt": "{completion} }"}, "prompt", "cannot be read"),
        ({**JUDGE, "scale": [5, 5]}, "scale", "the lowest score, then a higher one"),
        ({**JUDGE, "agreement": {"path": "a", "at_least": 1}}, "correct_at", "by agreement"),
        ({"model": "x", "device": "gpu"}, "device", "must match"),
        ({**JUDGE, "settings": {}}, "settings", "no such key"),
    ],
)
def test_a_service_that_cannot_work_is_refused(keys, path, said):
    fault = fault_of(keys, {"check": "format"})
    assert fault.path == f"terms.0.{path}"
    assert said in fault.reason


@pytest.mark.parametrize(
    "keys",
    [
        {"http": "http://user:hunter2@127.0.0.1/"},
        {"http": "http://a/", "auth": {"from_env": "sk-hunter2"}},
    ],
)
def test_a_secret_in_a_recipe_is_refused_and_not_repeated(keys):
    text = str(fault_of(keys))
    assert "environment variable" in text
    assert "hunter2" not in text
