"""Phases: which recipe a step follows, and changes that cannot be made on the way."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from mgrpo.config import MethodView, RunConfig
from mgrpo.config.explain import explain
from mgrpo.config.load import load_recipe
from mgrpo.errors import ConfigFault


def view(tree: dict[str, Any], *phases: dict[str, Any], steps: int = 20) -> MethodView:
    return recipe(tree, *phases, steps=steps).method_view


def phase(from_step: int, **changes: Any) -> dict[str, Any]:
    return {"name": f"from {from_step}", "from_step": from_step, "changes": changes}


def recipe(tree: dict[str, Any], *phases: dict[str, Any], steps: int = 20) -> RunConfig:
    return RunConfig.model_validate({**tree, "steps": steps, "phases": list(phases)})


def faults(tree: dict[str, Any], *phases: dict[str, Any]) -> list[ConfigFault]:
    with pytest.raises(ValidationError) as refused:
        recipe(tree, *phases)
    return explain(refused.value, RunConfig)


def fault(tree: dict[str, Any], *phases: dict[str, Any]) -> ConfigFault:
    (found,) = faults(tree, *phases)
    return found


def test_a_phase_lasts_from_its_first_step_until_the_next_ones(tree):
    config = view(
        tree,
        phase(5, sampling={"temperature": 0.8}),
        phase(9, sampling={"temperature": 0.6}),
    )
    found = [config.at_step(step).sampling.temperature for step in (0, 4, 5, 8, 9, 19)]
    assert found == [1.0, 1.0, 0.8, 0.8, 0.6, 0.6]


def test_each_phase_starts_from_the_recipe_and_not_from_the_one_before(tree):
    config = view(
        tree,
        phase(5, layers={"correct": {"loss_weight": 0.5}}),
        phase(9, objective={"loss": {"clip_high": 0.3}}),
    )
    assert [config.at_step(step).layers[1].loss_weight for step in (4, 5, 9)] == [1.0, 0.5, 1.0]
    assert [config.at_step(step).objective.loss.clip_high for step in (4, 5, 9)] == [0.2, 0.2, 0.3]


def test_without_phases_every_step_is_the_recipes(tree):
    config = view(tree)
    assert config.at_step(0) is config.at_step(19) is config.outside_phases


def test_what_a_phase_does_not_name_stays(tree):
    later = view(tree, phase(5, objective={"kl": {"weight": 0.1}})).at_step(5)
    assert later.objective.kl.estimator == "k3" and later.layers[0].group_size == 4


def test_a_recipe_with_phases_travels_to_other_processes(tree):
    config = recipe(tree, phase(5, sampling={"temperature": 0.8}))
    assert config.method_view.at_step(5).sampling.temperature == 0.8
    copy = pickle.loads(pickle.dumps(config))
    assert copy == config and copy.method_view == config.method_view


def test_the_reference_is_loaded_where_any_layer_of_any_phase_wants_it(tree):
    assert view(tree).max_kl_weight == 0.0
    assert view(tree, phase(5, objective={"kl": {"weight": 0.1}})).max_kl_weight == 0.1
    tree["layers"][1]["kl_weight"] = 0.2
    assert view(tree).max_kl_weight == 0.2
    later = phase(5, layers={"solve": {"kl_weight": 0.7}})
    assert view(tree, later).max_kl_weight == 0.7
    # A layer's own factor stands in for the objective's.
    tree["objective"] = {"kl": {"weight": 0.9}}
    tree["layers"][0]["kl_weight"] = 0.0
    assert view(tree).max_kl_weight == 0.2


def test_score_trains_the_second_turn_first_and_then_both():
    config = load_recipe("methods/score").method_view
    first, second = config.at_step(14), config.at_step(15)
    assert [layer.advantage.type for layer in first.layers] == ["none", "raw_reward"]
    assert [layer.advantage.type for layer in second.layers] == ["raw_reward", "raw_reward"]
    assert [layer.kl_weight for layer in first.layers] == [0.1, 0.01]
    assert [layer.kl_weight for layer in second.layers] == [0.01, 0.01]
    assert config.max_kl_weight == 0.1


@pytest.mark.parametrize(("second", "is_fine"), [(4, False), (5, False), (6, True)])
def test_phases_follow_one_another(tree, second: int, is_fine: bool):
    phases = [phase(5), phase(second)]
    if is_fine:
        assert len(view(tree, *phases).ever) == 3
    else:
        found = fault(tree, *phases)
        assert found.path == "phases.1.from_step" and "begins at step 5" in found.reason


def test_a_phase_after_the_end_never_begins(tree):
    assert recipe(tree, phase(19)).steps == 20
    found = fault(tree, phase(20))
    assert found.path == "phases.0.from_step" and found.suggestion == "Nearest valid value: 19."


def test_a_phase_before_the_start_is_refused(tree):
    assert fault(tree, phase(0)).path == "phases.0.from_step"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"learner": {"learning_rate": 1e-5}}, "learner"),
        ({"steps": 3}, "steps"),
        ({"layers": {"corect": {"loss_weight": 0.5}}}, "layers.corect"),
        ({"layers": {"correct": {"loss_wieght": 0.5}}}, "layers.1.loss_wieght"),
        ({"layers": {"correct": {"loss_weight": -1}}}, "layers.1.loss_weight"),
        ({"layers": {"correct": {"group_size": 1}}}, "layers.1.group_size"),
        ({"layers": {"solve": {"advantage": "improvement"}}}, "layers.0.advantage"),
        ({"objective": {"loss": {"clip_low": 2}}}, "objective.loss.clip_low"),
        ({"sampling": {"temperature": 0}}, "sampling.temperature"),
        # Laid out or built at the start:
        ({"layers": {"correct": {"name": "other"}}}, "layers.1.name"),
        ({"layers": {"correct": {"max_completion_tokens": 9}}}, "layers.1.max_completion_tokens"),
        ({"layers": {"correct": {"num_engines": 2}}}, "layers.1.num_engines"),
        ({"layers": {"correct": {"layout": "user_quote"}}}, "layers.1.layout"),
        ({"layers": {"correct": {"layout": {"quote": "answer_only"}}}}, "layers.1.layout"),
        ({"layers": {"solve": {"system_prompt": "Think."}}}, "layers.0.system_prompt"),
        (
            {"layers": {"correct": {"guidance": {"phrases": ["Why?"]}}}},
            "layers.1.guidance.phrases",
        ),
        ({"objective": {"update_order": "sequential"}}, "objective.update_order"),
        ({"source": "dynamic"}, "source"),
        ({"source": {"type": "fresh", "above": "dynamic"}}, "source.above"),
    ],
)
def test_what_a_phase_cannot_change_is_refused_under_its_path(tree, changes, path: str):
    assert fault(tree, phase(3), phase(5, **changes)).path == f"phases.1.changes.{path}"


def test_a_chain_keeps_its_length(tree):
    found = fault(tree, phase(5, layers=[{"name": "solve", "group_size": 4}]))
    assert found.path == "phases.0.changes.layers" and "must not change" in found.reason


def test_how_a_phrase_is_drawn_may_change(tree):
    later = phase(5, layers={"correct": {"guidance": {"draw": "fixed"}}})
    assert view(tree, later).at_step(5).layers[1].guidance.draw.type == "fixed"


def test_every_phase_is_told_of_at_once(tree):
    found = faults(tree, phase(5, steps=3), phase(4, objective={"loss": {"clip_low": 2}}))
    assert {one.path for one in found} == {
        "phases.0.changes.steps",
        "phases.1.from_step",
        "phases.1.changes.objective.loss.clip_low",
    }


def test_a_phase_may_end_and_come_again(tree):
    first = phase(2, sampling={"temperature": 0.8})
    returning = {
        **phase(4, objective={"loss": {"clip_high": 0.3}}),
        "num_steps": 2,
        "every_steps": 5,
    }
    config = view(tree, first, returning)
    active = [config.at_step(step).objective.loss.clip_high == 0.3 for step in range(16)]
    assert [step for step, is_active in enumerate(active) if is_active] == [4, 5, 9, 10, 14, 15]
    # In between the phase before holds; each phase starts from the recipe.
    assert [config.at_step(step).sampling.temperature for step in (1, 3, 4, 6)] == [1, 0.8, 1, 0.8]


def test_a_phase_may_end_for_good(tree):
    config = view(tree, {**phase(2, sampling={"temperature": 0.8}), "num_steps": 3})
    temperatures = [config.at_step(step).sampling.temperature for step in range(7)]
    assert temperatures == [1, 1, 0.8, 0.8, 0.8, 1, 1]


@pytest.mark.parametrize("ending", [{}, {"num_steps": 4}, {"num_steps": 5}])
def test_a_phase_that_returns_must_end_in_between(tree, ending):
    found = fault(tree, {**phase(2, sampling={"temperature": 0.8}), **ending, "every_steps": 4})
    assert found.path == "phases.0.every_steps" and "Set num_steps below" in found.suggestion
