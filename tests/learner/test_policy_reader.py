"""What is read of the policy, against whole logits and states of one text at a time."""

import pytest
import torch
from torch.testing import assert_close

from learner import policy_reader
from learner.batch import build_batch
from learner.policy_loading import load_policy
from learner.policy_reader import PolicyReader
from learner.rows import text
from mgrpo.config import LearnerConfig, ObjectiveConfig
from tests.learner.builders import layer, random_completions, save_tiny_llama, solve_layer

CHAIN = [solve_layer(), layer()]
CHUNK_TOKENS = 5
TEMPERATURE = 0.7
VOCAB_IDS = torch.tensor([3, 40, 7])


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return str(save_tiny_llama(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(params=[True, False], ids=["merged", "padded"])
def reader(request, model_dir):
    policy = load_policy(model_dir, dtype=torch.float32, merge_prefixes=request.param)
    assert policy.merges_prefixes == request.param
    return PolicyReader(
        {"policy": policy},
        settings=LearnerConfig(microbatch_tokens=64, logprob_chunk_tokens=CHUNK_TOKENS),
        temperature=TEMPERATURE,
        merges_prefixes=request.param,
        hidden_size=policy.hidden_size,
    )


@pytest.fixture(scope="module")
def rows():
    return build_batch(random_completions(), CHAIN, ObjectiveConfig()).all_rows


@pytest.fixture(scope="module")
def naive(model_dir, rows):
    """Per row, with every token of it read: [T, D] states and [T, V] log-probabilities."""
    causal_lm = load_policy(model_dir, dtype=torch.float32).causal_lm
    found = []
    with torch.no_grad():
        for row in rows:
            tokens = torch.tensor([[*row.prompt_token_ids.tolist(), *row.token_ids.tolist()]])
            hidden = causal_lm.get_decoder()(input_ids=tokens).last_hidden_state[0]
            logits = causal_lm(input_ids=tokens).logits[0] / TEMPERATURE
            found.append((hidden, logits.log_softmax(-1)))
    return found


def test_the_state_at_the_end_is_that_of_the_last_token_read(reader, rows, naive):
    found = reader.last_states(rows)
    assert_close(found, torch.stack([hidden[-1] for hidden, _ in naive]), rtol=1e-4, atol=1e-5)


def test_the_state_at_a_prompt_s_end_is_that_of_its_last_token(reader, rows, naive):
    calls = []
    policy = reader.models["policy"]
    reader.models = {"policy": lambda *given, **how: calls.append(given) or policy(*given, **how)}
    found = reader.measure([*rows, *rows], ["hidden_prompt"])["hidden_prompt"]
    ends = [one[len(row.prompt_token_ids) - 1] for row, (one, _) in zip(rows, naive, strict=True)]
    assert_close(found, torch.stack([*ends, *ends]), rtol=1e-4, atol=1e-5)
    distinct = {tuple(row.prompt_token_ids.tolist()) for row in rows}
    assert sum(given[0].numel() for given in calls) < 2 * sum(map(len, distinct)) + 64
    assert reader.measure([], ["hidden_prompt"])["hidden_prompt"].shape == (0, 32)


def test_every_token_is_visited_once_with_its_state_and_its_distribution(reader, rows, naive):
    count = sum(len(row.token_ids) for row in rows)
    visits = torch.zeros(count)
    tokens = torch.zeros(count, dtype=torch.int64)
    hidden, errors = torch.zeros(count, 32), torch.zeros(count, 3)
    sizes = []

    def look(states):
        sizes.append(len(states.places))
        visits[states.places] += 1
        tokens[states.places] = states.target_ids
        hidden[states.places] = states.hidden
        errors[states.places] = states.errors(VOCAB_IDS)
        assert_close(states.probabilities().sum(1), torch.ones(len(states.places)))

    reader.visit(rows, look, measurement="test")
    assert (visits == 1).all() and max(sizes) == CHUNK_TOKENS
    assert tokens.tolist() == [token for row in rows for token in row.token_ids]
    first = [len(row.prompt_token_ids) - 1 for row in rows]
    expected = torch.cat([one[at:-1] for at, (one, _) in zip(first, naive, strict=True)])
    assert_close(hidden, expected, rtol=1e-4, atol=1e-5)
    logprobs = torch.cat([one[at:-1] for at, (_, one) in zip(first, naive, strict=True)])
    onehot = torch.nn.functional.one_hot(tokens, 64)
    assert_close(errors, (onehot - logprobs.exp())[:, VOCAB_IDS], rtol=1e-4, atol=1e-5)


def test_some_of_the_visited_tokens_can_be_taken(reader, rows):
    seen = []

    def look(states):
        few = states.at(states.target_ids > 30)
        assert_close(few.probabilities(), states.probabilities()[states.target_ids > 30])
        seen.extend(few.target_ids.tolist())

    reader.visit(rows, look, measurement="test")
    everything = [token for row in rows for token in row.token_ids]
    assert sorted(seen) == sorted(token for token in everything if token > 30)


def test_any_texts_can_be_read(reader, rows, naive):
    """A row's tokens after its second one, and their log-probabilities given all before."""
    long = [n for n, row in enumerate(rows) if len(row.token_ids) > 2]
    texts = [
        text([*rows[n].prompt_token_ids, *rows[n].token_ids[:2]], rows[n].token_ids[2:])
        for n in long
    ]
    expected = []
    for n in long:
        first = len(rows[n].prompt_token_ids) + 1
        chosen = torch.tensor(rows[n].token_ids[2:])[:, None]
        expected.append(naive[n][1][first:-1].gather(1, chosen)[:, 0])
    assert_close(reader.logprobs(texts), torch.cat(expected).double(), rtol=1e-4, atol=1e-5)


def test_every_rank_has_as_many_passes_as_the_one_with_the_most(reader, rows, monkeypatch):
    """Also one without texts: sharded weights need all ranks in each pass."""
    calls = []
    policy = reader.models["policy"]
    reader.models = {"policy": lambda *given, **how: calls.append(given) or policy(*given, **how)}
    reader.num_ranks = 2
    monkeypatch.setattr(policy_reader.dist, "all_reduce", lambda most, _: most.fill_(30))
    plan = reader.plan(rows)
    assert len(plan) == 30 and not any(plan[-2:])
    assert reader.logprobs([]).tolist() == [] and len(calls) == 30
    assert reader.last_states([]).shape == (0, 32) and len(calls) == 60


def test_times_are_counted_by_signal_and_only_where_something_was_read(reader, rows):
    assert reader.costs() == {}
    reader.measure(rows, ["policy_logprobs", "entropies", "hidden_last"])
    costs = reader.costs()
    assert costs.keys() == {"measurements/policy_logprobs_s", "measurements/hidden_last_s"}
    assert all(total > 0 and count == 1 for total, count in costs.values())
    assert reader.costs() == {}
