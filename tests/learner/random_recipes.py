"""Random valid recipes, made from the types that recipes have.

Pydantic models are walked field by field: a slot takes any of its kinds, a method's own part any of
its settings within their bounds. What types cannot say is written out in `fitted`: a recipe that
this module makes and the checks refuse, or that does not train, is an error of one of them.

    python -m tests.learner.random_recipes --count 200 --seed 3      # a JSON object per recipe
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import socket
import sys
import tempfile
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import torch
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from learner.batch import with_added
from learner.plugin import AdvantageEstimator, LearnerPlugin, PolicyLoss
from learner.recipe import learner_recipe
from mgrpo.config import CorrectLayer, RunConfig, SolveLayer, VerifyLayer
from mgrpo.config.advantages import (
    ConstPositive,
    GroupZ,
    Improvement,
    NoAdvantage,
    RawReward,
)
from mgrpo.config.base import OnlyWith
from mgrpo.config.guidance import GUIDANCE_PHRASES
from mgrpo.config.losses import NoImportance, PpoClip, Truncate
from mgrpo.config.parts import Part
from mgrpo.plugin import Plugin, find_plugin, load_plugins
from mgrpo.registry import Kind, declared
from mgrpo.types import EXPERT, Completion, Reward
from tests.learner.builders import save_tiny_llama
from tests.learner.method_cases import made_up_step, save_scorer
from tests.learner.rank_worker import OneOfSeveral

Tree = dict[str, Any]

MOST_TRIES = 200  # for settings that their own validator accepts
NOT_DRAWN = ("dpo",)
"""Plug-ins that work on steps of another source alone."""
GIVEN: dict[str, Tree] = {
    "overlong_penalty": {"max_tokens": 8},
    "integrated_answers": {"max_answer_tokens": 8, "max_context_tokens": 64, "max_new_tokens": 8},
}
"""Settings that the made-up step lays down."""


def drawn(model: type[BaseModel], rng: random.Random, given: Mapping[str, Any]) -> Tree:
    """A section of this type: some keys drawn, the others left out; `given` as they are.

    Raises:
        ValueError: no drawn section passed the model's own validator.
    """
    for _ in range(MOST_TRIES):
        tree = dict(given)
        for name, field in model.model_fields.items():
            if name in tree or (not field.is_required() and rng.random() < 0.5):
                continue
            tree |= drawn_field(name, field, rng)
        tree = {key: value for key, value in tree.items() if has_effect(model, key, tree)}
        try:
            model.model_validate(tree)
        except ValidationError:
            continue
        return tree
    raise ValueError(f"no random {model.__name__} passed its validator")


def has_effect(model: type[BaseModel], key: str, tree: Tree) -> bool:
    """False for a key that others of the section leave without effect."""
    marks = [one for one in model.model_fields[key].metadata if isinstance(one, OnlyWith)]
    return all(
        tree.get(other, model.model_fields[other].default) == value
        for mark in marks
        for other, value in mark.values.items()
    )


def drawn_field(name: str, field: FieldInfo, rng: random.Random) -> Tree:
    """{name: value}, or {} for a type of which nothing can be drawn: texts, maps, free lists."""
    value = drawn_value(field.annotation, field.metadata, field.default, rng)
    return {} if value is SKIPPED else {name: value}


SKIPPED = object()


def drawn_value(annotation: Any, metadata: list[Any], default: Any, rng: random.Random) -> Any:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return drawn_value(inner, [*metadata, *more], default, rng)
    if origin is Literal:
        return rng.choice(get_args(annotation))
    if origin in (Union, types.UnionType):
        return drawn_value(rng.choice(get_args(annotation)), metadata, default, rng)
    if annotation is types.NoneType:
        return None
    if annotation is bool:
        return rng.random() < 0.5
    if annotation in (int, float):
        return drawn_number(annotation, metadata, default, rng)
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return SKIPPED  # its kind of slot is drawn by name
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return drawn(annotation, rng, given_of(annotation))
    return SKIPPED


def given_of(model: type[BaseModel]) -> Tree:
    """What a section must say: its kind, and a weight for every phrase."""
    tree: Tree = {}
    if "type" in model.model_fields:
        tree["type"] = model.model_fields["type"].default
    if "weights" in model.model_fields:
        tree["weights"] = [1.0] * len(GUIDANCE_PHRASES)
    if "phrases" in model.model_fields:
        tree["phrases"] = list(GUIDANCE_PHRASES)
    return tree


def drawn_number(kind: type, metadata: list[Any], default: Any, rng: random.Random) -> float:
    """A number within the bounds that the field states, near its default where it has one."""
    lowest, highest = -math.inf, math.inf
    for mark in metadata:
        for bound in mark if isinstance(mark, annotated_types.GroupedMetadata) else [mark]:
            if isinstance(bound, annotated_types.Ge):
                lowest = max(lowest, typing.cast(Any, bound.ge))
            elif isinstance(bound, annotated_types.Gt):
                lowest = max(lowest, bound.gt + (1 if kind is int else 1e-3))
            elif isinstance(bound, annotated_types.Le):
                highest = min(highest, typing.cast(Any, bound.le))
            elif isinstance(bound, annotated_types.Lt):
                highest = min(highest, bound.lt - (1 if kind is int else 1e-3))
    about = default if isinstance(default, int | float) and default else max(lowest, 1)
    if kind is int:
        return int(min(max(lowest, rng.randint(0, 2 * int(about))), highest))
    return min(max(lowest, about * rng.uniform(0.25, 2.0)), highest)


def slot(kind: Kind, own: Mapping[str, type[BaseModel]], rng: random.Random) -> Any:
    """A kind of the trainer's own, or one that a method has declared."""
    name = rng.choice([*own, *declared(kind)])
    if name in own:
        return {"type": name, **drawn(own[name], rng, given_of(own[name]))}
    settings = find_plugin(name, kind).Settings
    return {"type": name, **drawn(settings, rng, GIVEN.get(name, {}))}


MODELS = {"solve": SolveLayer, "correct": CorrectLayer, "verify": VerifyLayer}


def random_tree(rng: random.Random, scorer: Path) -> Tree:
    """A recipe for the tiny policy, valid in all its parts together."""
    layers: list[Tree] = []
    for depth in range(rng.choice([1, 2, 2, 3])):
        kind = "solve"
        if depth:
            after_verdict = layers[-1]["kind"] == "verify"
            kind = "correct" if after_verdict else rng.choice(["correct", "correct", "verify"])
        given = {
            "name": f"layer{depth + 1}",
            "kind": kind,
            "group_size": rng.randint(2, 4),
            "max_completion_tokens": 8,
            "num_engines": 1,
        }
        own = [GroupZ, ConstPositive, RawReward, NoAdvantage] + (
            [Improvement] if kind == "correct" else []
        )
        kinds = {kind().type: kind for kind in own}
        given["advantage"] = slot("ADVANTAGES", kinds, rng)
        layers.append(drawn(MODELS[kind], rng, given))
    objective = {
        "loss": slot("LOSSES", {"ppo_clip": PpoClip}, rng),
        "importance": slot("IMPORTANCE", {"truncate": Truncate, "none": NoImportance}, rng),
        "updates_per_rollout": rng.randint(1, 2),
        "minibatches": rng.randint(1, 2),
        "kl": {"weight": rng.choice([0.0, 0.1]), "estimator": rng.choice(["k1", "k2", "k3"])},
    }
    names = rng.sample(sorted(declared("PLUGINS")), rng.randint(0, 3))
    plugins = [plugin_tree(name, rng, scorer) for name in names if name not in NOT_DRAWN]
    tree = {
        "name": "random",
        "steps": 4,
        "prompts_per_step": 2,
        "model": {"path": "tiny", "dtype": "float32"},
        "data": {"train": {"source": "jsonl", "path": "none"}, "max_prompt_tokens": 16},
        "layers": layers,
        "objective": objective,
        "plugins": plugins,
        "learner": {"num_threads": 1, "learning_rate": 1e-3},
    }
    return fitted(tree, rng, scorer)


NEED_CORRECTIONS = {
    *("attempt_weights", "correction_bonus", "credit_back", "refined_group", "self_distillation"),
}


def plugin_tree(name: str, rng: random.Random, scorer: Path) -> Tree:
    given = {"scorer": str(scorer)} if name == "prefix_preference" else GIVEN.get(name, {})
    return {"use": name, "settings": drawn(find_plugin(name).Settings, rng, given)}


def fitted(tree: Tree, rng: random.Random, scorer: Path) -> Tree:
    """The tree with what relates its parts: the rules that types do not express."""
    layers, objective = tree["layers"], tree["objective"]
    layers[0]["loss_weight"] = 1.0  # something must train
    if any(layer["kind"] == "verify" for layer in layers):  # whose verdicts are no attempts
        tree["plugins"] = [one for one in tree["plugins"] if one["use"] != "attempt_weights"]
    if not any(layer["kind"] == "correct" for layer in layers):
        tree["plugins"] = [one for one in tree["plugins"] if one["use"] not in NEED_CORRECTIONS]
    for entry in list(tree["plugins"]):
        kind = find_plugin(entry["use"])
        needs = kind.needed(kind.Settings.model_validate(entry["settings"]))
        if needs and needs[0] in declared("LOSSES"):
            objective["loss"] = {"type": needs[0]}
        elif needs and not any(one["use"] in needs for one in tree["plugins"]):
            place = tree["plugins"].index(entry)
            tree["plugins"].insert(place, plugin_tree(needs[0], rng, scorer))
    if any(one["use"] == "refined_group" for one in tree["plugins"]):  # the same corrections
        tree["plugins"] = [one for one in tree["plugins"] if one["use"] != "self_distillation"]
    uses = [one["use"] for one in tree["plugins"]]
    for entry in tree["plugins"]:
        if entry["use"] == "sdpo":
            entry["layers"] = [layers[0]["name"]]
        if entry["use"] == "expert_anchor":  # nothing may correct what it adds
            entry["layers"] = [layers[-1]["name"]]
        if entry["settings"].get("offpolicy") == "ratio_one":
            objective["updates_per_rollout"] = objective["minibatches"] = 1
        if entry["settings"].get("offpolicy") == "sft_loss" and "supervised_injections" not in uses:
            tree["plugins"].append(plugin_tree("supervised_injections", rng, scorer))
    if "expert_anchor" in uses:
        objective["loss"] = {"type": "shaped_probability"}
    if "unbiased_kl" in uses:  # a second KL penalty
        objective["kl"]["weight"] = 0.0
        for layer in layers:
            layer["kl_weight"] = None
    loss = objective["loss"]["type"]
    if loss in declared("LOSSES"):
        fit_loss(find_plugin(loss, "LOSSES"), tree)
    fit_trajectories(tree)
    fit_parents(layers, uses)
    return tree


def fit_trajectories(tree: Tree) -> None:
    """What parts ask that work on whole trajectories."""
    layers, uses = tree["layers"], [one["use"] for one in tree["plugins"]]
    drawn_ones = [one["advantage"] for one in layers if isinstance(one["advantage"], dict)]
    of_turns = [one for one in drawn_ones if one["type"] == "s2r"]
    if len(layers) == 1:
        tree["plugins"] = [one for one in tree["plugins"] if one["use"] != "best_trajectory"]
        if of_turns:
            layers[0]["advantage"] = "group_z"
    elif of_turns or "best_trajectory" in uses:
        for depth, layer in enumerate(layers):
            if of_turns:
                layer |= {"advantage": of_turns[0], "aggregation": "seq_mean"}
            if depth:
                layer |= {"group_size": 1, "group_by": "query", "denominator": "sampled"}
                layer |= {"early_stop": "never", "over_sample": 0}


def fit_parents(layers: list[Tree], uses: list[str]) -> None:
    """What a layer may read of the one before."""
    completions = 1
    for before, layer in zip([{}, *layers], layers, strict=False):
        if not before:
            completions *= layer["group_size"]
            continue
        if before["kind"] == "verify":
            layer |= {"layout": {"type": "self_continue"}, "guidance": {"type": "phrases"}}
            layer["parents"] = {"type": "rejected"}
        elif layer.get("parents", {}).get("type") == "rejected":
            layer["parents"] = {"type": "all"}
        if "attempt_weights" in uses:
            layer["parents"] = {"type": "wrong_only"}
        if "self_distillation" in uses:
            layer["denominator"] = "sampled"
        parents = layer.get("parents", {"type": "all"})
        if parents.get("k") is not None:
            parents["k"] = min(parents["k"], completions)
        if parents["type"] == "one_of_each":
            completions = 2
        elif parents["type"] not in ("all", "wrong_only", "rejected"):
            completions = parents.get("k", 1)
        completions *= layer["group_size"]


def fit_loss(kind: type[Plugin], tree: Tree) -> None:
    """What a loss asks of the layers, and which plug-ins it cannot stand beside."""
    assert issubclass(kind, PolicyLoss)
    if kind.whole_completion:  # which a factor on single tokens means nothing to
        tree["plugins"] = [one for one in tree["plugins"] if one["use"] != "lambda_grpo"]
    for layer in tree["layers"]:
        if kind.whole_completion:
            layer["aggregation"] = "seq_mean"
        if issubclass(kind, AdvantageEstimator):
            layer["advantage"] = "none"
            if layer["kind"] != "solve":
                layer |= {"select": "none", "denominator": "sampled"}


# --- one update of each ---------------------------------------------------------------------------


class Trainings:
    """A tiny policy, and learners one after the other."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.scorer = save_scorer(folder)
        self.model_dir = save_tiny_llama(
            folder / "policy",
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def update(self, config: RunConfig) -> float:
        """The gradient norm of one update on a made-up step; raises what stops it."""
        learner = OneOfSeveral(
            recipe=learner_recipe(config),
            model_dir=str(self.model_dir),
            rank=0,
            num_ranks=1,
            master_address="127.0.0.1",
            master_port=self.port,
            device="cpu",
        )
        completions = with_expert(config, made_up_step(config))
        result = learner.update(completions, step=0)
        learner.engine.destroy()
        parts = load_plugins(config.method_view, LearnerPlugin)
        num_rows = len(with_added(completions, (), parts))
        assert result is not None and len(result.selections) == num_rows
        total, count = result.metrics.get("learner/grad_norm", (0.0, 1.0))
        assert math.isfinite(total), f"gradient norm {total}"
        return total / count


def with_expert(config: RunConfig, completions: list[Completion]) -> list[Completion]:
    """The step with a worked solution in its last layer, where the recipe adds such."""
    if all(entry.use != "expert_anchor" for entry in config.plugins):
        return completions
    last = next(one for one in completions if one.layer == len(config.layers))
    size = len(last.token_ids)
    expert = dataclasses.replace(
        last,
        id=last.id.apart("expert"),
        rollout_logprobs=[0.0] * size,
        sampled_mask=[False] * size,
        train_mask=None,
        spans={},
        augmented_by=EXPERT,
        reward=Reward(value=1.0, correct=True),
    )
    return [*completions, expert]


def main() -> int:
    """1 where a recipe is refused or does not train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-training", action="store_true")
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        trainings = Trainings(Path(folder))
        for number in range(args.count):
            rng = random.Random(f"{args.seed}/{number}")
            tree = random_tree(rng, trainings.scorer)
            try:
                config = RunConfig.model_validate(tree)
                load_plugins(config.method_view, Plugin)
                norm = None if args.no_training else trainings.update(config)
            except Exception as error:  # whatever it is, it is named with its recipe
                failed = True
                print(f"{type(error).__name__}: {error}\n{json.dumps(tree)}", file=sys.stderr)
            else:
                print(json.dumps({"number": number, "grad_norm": norm, "recipe": tree}), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
