"""A step in minibatches: what each optimizer step trains on, and its denominators."""

from collections import Counter

import pytest

from learner.batch import build_batch
from learner.packing import cut_trees
from mgrpo.config import ObjectiveConfig
from tests.learner.builders import layer, long, plugin, random_completions, solve_layer


def batch_of(completions, layers, minibatches=1, **settings):
    objective = ObjectiveConfig(minibatches=minibatches)
    return build_batch(completions, layers, objective, **settings)


def problem(row):
    return row.completion_id.split("/")[0]


@pytest.mark.parametrize(
    ("num_trees", "num_parts", "sizes"),
    [(4, 2, [2, 2]), (5, 3, [2, 2, 1]), (16, 16, [1] * 16), (3, 5, [1, 1, 1]), (4, 1, [4])],
)
def test_parts_are_whole_trees_in_order_and_nearly_equal(num_trees, num_parts, sizes):
    trees = [f"p{number}" for number in range(num_trees) for _ in range(3)]
    found = cut_trees(trees, num_parts)
    assert found == sorted(found)
    counts = Counter(zip(found, trees, strict=True))
    assert set(counts.values()) == {3} and len(counts) == num_trees
    assert list(Counter(part for part, _ in counts).values()) == sizes


def test_completions_of_one_tree_are_together_wherever_they_stand():
    assert cut_trees(["a", "b", "a", "c", "b"], 2) == [0, 0, 0, 1, 0]
    assert cut_trees([], 2) == []


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        # Problem p has 1 + 3 tokens, q 2 + 2, r 4 + 6; p and q are the first part.
        ("token_mean", {"p/1": 1 / 8, "p/2": 1 / 8, "q/1": 1 / 8, "r/1": 1 / 10, "r/2": 1 / 10}),
        ("seq_mean", {"p/1": 1 / 4, "p/2": 1 / 12, "q/1": 1 / 8, "r/1": 1 / 8, "r/2": 1 / 12}),
        ("fixed_length", {"p/1": 1 / 32, "p/2": 1 / 32, "q/1": 1 / 32, "r/1": 1 / 16}),
    ],
)
def test_denominators_are_those_of_the_part(aggregation, expected):
    completions = [
        *(long("p/1", 1.0, 1), long("p/2", 0.0, 3)),
        *(long("q/1", 1.0, 2), long("q/2", 0.0, 2)),
        *(long("r/1", 1.0, 4), long("r/2", 0.0, 6)),
    ]
    batch = batch_of(completions, [solve_layer(aggregation=aggregation)], 2)
    weights = {row.completion_id: row.token_weights[0] for row in batch.rows}
    assert {name: weights[name] for name in expected} == pytest.approx(expected)
    first, second = batch.minibatches
    assert {problem(row) for row in first.rows} == {"p", "q"}
    assert {problem(row) for row in second.rows} == {"r"}


def test_parents_of_one_part_alone_are_averaged_over():
    completions = [
        *(long("p/1/1", 1.0, 1), long("p/1/2", 0.0, 1)),
        *(long("q/1/1", 1.0, 1), long("q/1/2", 0.0, 1)),
        *(long("q/2/1", 1.0, 1), long("q/2/2", 0.0, 1)),
    ]
    for one, parent in zip(completions, ("p", "p", "q", "q", "q", "q"), strict=True):
        assert one.parent_id.startswith(parent)
    attempts = [long(name, 0.0, 1) for name in ("p/1", "q/1", "q/2")]
    layers = [solve_layer(), layer(select="none", denominator="per_parent")]
    batch = batch_of(completions, layers, 2, context=attempts)
    weights = {row.completion_id: row.token_weights[0] for row in batch.rows}
    assert weights["p/1/1"] == pytest.approx(1 / 2)  # one parent of two corrections
    assert weights["q/1/1"] == pytest.approx(1 / 2 / 2)  # two parents of two


CHAINS = (
    [solve_layer(), layer()],
    [solve_layer(aggregation="token_mean"), layer(aggregation="token_mean", loss_weight=0.5)],
    [solve_layer(), layer(denominator="per_parent", select="groups_with_success")],
    [solve_layer(aggregation="fixed_length"), layer(denominator="retained")],
)


@pytest.mark.parametrize("layers", CHAINS)
@pytest.mark.parametrize("minibatches", [1, 2, 3, 5, 9])
def test_a_part_has_the_rows_of_a_step_of_its_own(layers, minibatches):
    """Groups are within trees here, so nothing else of the step plays a part."""
    completions = random_completions(5)
    batch = batch_of(completions, layers, minibatches)
    assert len(batch.minibatches) == min(minibatches, 5)
    covered = []
    for part in batch.minibatches:
        names = {problem(row) for row in part.rows}
        alone = batch_of([one for one in completions if one.problem_id in names], layers)
        assert part.rows == alone.rows
        covered += sorted(names)
    assert covered == [f"p{number}" for number in range(5)]


def test_advantages_and_selection_are_those_of_the_whole_step():
    completions = random_completions(5)
    layers = [solve_layer(advantage="reinforce_plus_plus"), layer(group_by="batch")]
    plugins = [plugin("reinforce_plus_plus", 1)]
    whole, parts = (batch_of(completions, layers, n, plugins=plugins) for n in (1, 3))
    assert parts.selections == whole.selections
    advantages = {row.completion_id: row.advantages.tolist() for row in whole.rows}
    assert {row.completion_id: row.advantages.tolist() for row in parts.rows} == advantages


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_every_optimizer_step_is_shared_out_by_itself(num_ranks):
    completions = random_completions(8)
    layers = [solve_layer(), layer()]
    whole = batch_of(completions, layers, 4)
    ranks = [
        batch_of(completions, layers, 4, rank=rank, num_ranks=num_ranks, add_over_ranks=lambda v: v)
        for rank in range(num_ranks)
    ]
    for number, part in enumerate(whole.minibatches):
        shares = [one.minibatches[number].rows for one in ranks]
        names = sorted(row.completion_id for share in shares for row in share)
        assert names == sorted(row.completion_id for row in part.rows)
        loads = [sum(row.num_input_tokens for row in share) for share in shares]
        assert min(loads) > 0 and max(loads) < 2.5 * sum(loads) / num_ranks


def test_a_plug_ins_own_denominators_are_those_of_the_part():
    """DisCO: completions per prompt; a prompt of the second part has one that counts for less."""
    completions = [
        *(long("p/1", 1.0, 1), long("p/2", 0.0, 1)),
        *(long("q/1", 1.0, 1), long("q/2", 0.0, 1), long("q/3", 0.0, 1)),
    ]
    layers = [solve_layer(advantage="none")]
    plugins = [plugin("disco", 1, score="ratio", robust=False)]
    weights = {}
    for row in batch_of(completions, layers, 2, plugins=plugins).rows:
        weights[row.completion_id] = row.advantages[0] * row.token_weights[0]
    assert weights == pytest.approx({"p/1": 1, "p/2": -1, "q/1": 1, "q/2": -0.5, "q/3": -0.5})
