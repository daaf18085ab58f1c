"""DisCO through the learner's own seam, and against direct differentiation of the set's loss."""

import dataclasses

import pytest
import torch

from learner.batch import build_batch, refreshed
from learner.objective import microbatch_loss
from learner.packing import collate
from learner.plugin import LearnerPlugin
from mgrpo.config import ObjectiveConfig
from mgrpo.errors import ConfigError
from mgrpo.methods.disco.plugin import COEFFICIENT, PENALTY
from mgrpo.methods.disco.set_objectives import set_objective
from mgrpo.plugin import load_plugins
from tests.learner.builders import completion, layer, plugin, run_config, solve_layer

OBJECTIVE = ObjectiveConfig(importance="none", updates_per_rollout=2)
SCORES = [-0.5, -0.7, -0.4, -1.0]


def group(name, rewards):
    return [completion(f"{name}/{n}", value) for n, value in enumerate(rewards, start=1)]


def built(completions, logprobs=None, part=None, **settings):
    values = [-1.0] * sum(len(one.token_ids) for one in completions)
    measurement = torch.tensor(logprobs or values, dtype=torch.float64)
    return build_batch(
        completions,
        [solve_layer()],
        OBJECTIVE,
        plugins=[part or plugin("disco", **settings)],
        measurements={"policy_logprobs": measurement},
    )


@pytest.mark.parametrize(
    ("settings", "wrong", "objective"),
    [
        ({}, [-0.514996, -0.485004], 0.095501),
        ({"temperature": 1.0}, [-0.645656, -0.354344], 0.055659),
        ({"robust": False}, [-0.5, -0.5], 0.1),
    ],
)
def test_the_worked_group_gets_its_coefficients(settings, wrong, objective):
    """Times 4 completions per prompt, since the layer averages over completions."""
    wanted = settings.get("robust", True)
    batch = built(group("q", [1.0, 1.0, 0.0, 0.0]), SCORES, **settings)
    found = [row.columns[COEFFICIENT][0] / 4 for row in batch.rows]
    assert found == pytest.approx([0.5, 0.5, *wrong], abs=1e-6)
    if wanted:
        total, count = batch.metrics["disco/objective"]
        assert (total, count) == (pytest.approx(objective, abs=1e-6), 1.0)


def test_the_ratio_starts_with_equal_shares_and_needs_no_forward_pass():
    part = plugin("disco", score="ratio")
    assert part.wanted_measurements() == frozenset()
    assert (part.temperature, plugin("disco").temperature) == (1.0, 10.0)
    rows = built(group("q", [1.0, 0.0, 0.0]), part=part).rows
    assert [row.columns[COEFFICIENT][0] for row in rows] == pytest.approx([3.0, -1.5, -1.5])


def test_uniform_groups_count_as_prompts():
    """With a second prompt that is all right, the first one's share is half."""
    mixed = group("q", [1.0, 0.0])
    alone = built(mixed, robust=False)
    beside = built([*mixed, *group("p", [1.0, 1.0])], robust=False)

    def shares(batch):
        return [row.columns[COEFFICIENT][0] * row.token_weights[0] for row in batch.rows]

    assert shares(alone) == pytest.approx([1.0, -1.0])
    assert shares(beside) == pytest.approx([0.5, -0.5, 0, 0])
    assert beside.metrics["disco/objective"][1] == 2.0


# --- against direct differentiation ---


def two_groups():
    """Two prompts of four completions each, of 1 to 5 tokens, half of them right."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for name in ("q", "p"):
        for number, reward in enumerate([1.0, 0.0, 0.0, 1.0], start=1):
            length = int(torch.randint(1, 6, (1,), generator=generator))
            ids = torch.randint(1, 64, (length,), generator=generator).tolist()
            logprobs = [-1.0] * length
            made.append(
                completion(f"{name}/{number}", reward, token_ids=ids, rollout_logprobs=logprobs)
            )
    return made


def policy(seed):
    generator = torch.Generator().manual_seed(seed)
    return -3 * torch.rand(64, generator=generator, dtype=torch.float64)


def set_loss(table, old_table, completions, part):
    """The paper's loss, over whole sets."""
    settings = part.settings
    scores, gaps = [], []
    for one in completions:
        now, before = table[one.token_ids], old_table[one.token_ids]
        is_ratio = settings.score == "ratio"
        scores.append(((now - before).exp() if is_ratio else now).mean())
        gaps.append(before - now)
    stacked = torch.stack(scores)
    is_right = torch.tensor([one.is_correct for one in completions])
    value = sum(
        set_objective(stacked[half], is_right[half], temperature=part.temperature)
        for half in (slice(0, 4), slice(4, 8))
    )
    excess = (torch.cat(gaps).mean() - settings.divergence_bound).clamp(min=0)
    return -value / 2 + settings.divergence_weight * excess.square()


def exact(part, rows):
    """A micro-batch whose factors are in double precision, as the rows have them."""

    def flat(parts):
        return torch.tensor([value for one in parts for value in one], dtype=torch.float64)

    names = part.columns
    return dataclasses.replace(
        part,
        advantages=flat(row.advantages for row in rows),
        token_weights=flat(row.token_weights for row in rows),
        columns={name: flat(row.columns[name] for row in rows) for name in names},
    )


def rows_before_a_second_update(batch, part, table, old_table):
    tokens = [token for row in batch.rows for token in row.token_ids]
    return refreshed(batch.minibatches[0], [part], table[tokens], old_table[tokens])


def cut_gradient(rows, part, table, old_table):
    """The gradient from three micro-batches that cut both groups."""
    leaf = table.clone().requires_grad_()
    for cut in (rows[:3], rows[3:6], rows[6:]):
        piece = exact(collate(cut, merge_prefixes=False), cut)
        logprobs = leaf[piece.target_ids]
        old = old_table[piece.target_ids]
        loss = microbatch_loss(piece, logprobs, old, None, logprobs * 0, OBJECTIVE, [part])
        loss.backward()
    return leaf.grad


@pytest.mark.parametrize("score", ["log_likelihood", "ratio"])
@pytest.mark.parametrize("robust", [True, False])
@pytest.mark.parametrize("is_second_update", [False, True])
def test_groups_cut_across_micro_batches_get_the_gradient_of_the_set(
    score, robust, is_second_update
):
    part = plugin("disco", score=score, robust=robust)
    completions, old_table = two_groups(), policy(1)
    table = old_table + 0.2 * policy(2) if is_second_update else old_table  # D above 0
    tokens = [token for one in completions for token in one.token_ids]
    batch = built(completions, old_table[tokens].tolist(), part)
    rows = batch.rows
    if is_second_update:
        rows = rows_before_a_second_update(batch, part, table, old_table)
        assert any(row.columns[PENALTY][0] > 0 for row in rows)
    leaf = table.clone().requires_grad_()
    set_loss(leaf, old_table, completions, part).backward()
    found = cut_gradient(rows, part, table, old_table)
    scale = leaf.grad.abs().max()
    assert scale > 0.01
    assert float((found - leaf.grad).abs().max() / scale) < 1e-14


def test_the_authors_penalty_has_half_the_gradient():
    completions, old_table = two_groups(), policy(1)
    table = old_table + 0.2 * policy(2)
    factors = []
    for form in ("squared", "repo"):
        part = plugin("disco", penalty_form=form)
        batch = built(completions, part=part)
        rows = rows_before_a_second_update(batch, part, table, old_table)
        factors.append(rows[0].columns[PENALTY][0])
    assert factors[0] == pytest.approx(2 * factors[1])


def test_tokens_without_loss_are_in_no_score():
    masked = completion(
        "q/1", 1.0, token_ids=[3, 4], rollout_logprobs=[-1.0] * 2, train_mask=[True, False]
    )
    others = [completion("q/2", 0.0), completion("q/3", 0.0)]
    batch = built([masked, *others], [-1.0, -99.0, -0.5, -2.0])
    part = plugin("disco")
    old = torch.tensor([-1.0, 0.0, -0.5, -2.0], dtype=torch.float64)
    first = refreshed(batch.minibatches[0], [part], old - 1, old)[0].columns[PENALTY]
    assert first[1] == 0
    # The gap is 1 on each of 3 tokens: 2 * 1e3 * (1 - 1e-4) / 3.
    assert first[0] == pytest.approx(2e3 * (1 - 1e-4) / 3)


NONE = {"advantage": "none"}


@pytest.mark.parametrize(
    ("layers", "loss", "message"),
    [
        ([solve_layer(**NONE, aggregation="token_mean")], "disco", "aggregation: seq_mean"),
        ([solve_layer()], "disco", r"layers\.0\.advantage = group_z: disco has coefficients"),
        ([solve_layer(**NONE), layer(**NONE)], "disco", "select: none"),
        (
            [solve_layer(**NONE)],
            {"type": "disco", "robust": False, "temperature": 1},
            "has no effect without robust: True",
        ),
    ],
)
def test_what_it_cannot_work_with_is_refused(layers, loss, message):
    config = run_config(layers=layers, objective={"loss": loss})
    with pytest.raises(ConfigError, match=message):
        load_plugins(config.method_view, LearnerPlugin)
