"""What is trained: every recipe, with the updates that its kind of step makes. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One update of the policy."""

    step: int
    rows: str = ""  # name of a set of completions in inputs.json
    changed: str = ""  # name of a set whose completions take the place of others, or are added
    trains: tuple[int, ...] = (1, 2, 3)  # layers, as far as the recipe has them
    given: tuple[int, ...] = ()  # layers that are known to the update and do not train
    replays: str = ""  # name of a set of completions with their advantages
    pairs: tuple[int, ...] = ()  # numbers of preference pairs, which train in place of rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A recipe and its updates."""

    recipe: str  # as the command line takes it
    num_layers: int
    updates: tuple[Update, ...]

    @property
    def file_name(self) -> str:
        return self.recipe.replace("/", "-") + ".json"


JOINT = (Update(step=0, rows="first"), Update(step=1, rows="second"))
SEQUENTIAL = tuple(
    Update(step=step, rows=rows, trains=trains, given=given)
    for step, rows in ((0, "first"), (1, "second"))
    for trains, given in (((1,), ()), ((2,), (1,)))
)
ALTERNATE = (
    Update(step=0, rows="first", trains=(1,)),
    Update(step=1, rows="second", trains=(2,), given=(1,)),
)
POOLED = (
    Update(step=0, rows="first", trains=(1,)),
    Update(step=1, rows="pooled", trains=(2,), given=(1,)),
)
REPLAYED = (Update(step=0, rows="first"), Update(step=1, rows="second", replays="replayed"))
REPAIRED = (
    Update(step=0, rows="first", changed="repaired"),
    Update(step=1, rows="second", changed="repaired again"),
)
WITH_EXPERTS = (
    Update(step=0, rows="first", changed="experts"),
    Update(step=1, rows="second", changed="experts again"),
)
ON_PAIRS = (
    Update(step=0, rows="first"),
    Update(step=1, pairs=(0, 1, 2)),
    Update(step=2, pairs=(3, 4, 5)),
)

ONE_LAYER = (
    "grpo",
    "study/grpo",
    *(
        f"methods/{name}"
        for name in (
            *("agro", "cispo", "clip_cov", "dapo", "desel", "disco", "dr_grpo", "entity_reward"),
            *("entropy_bonus", "gcpo", "gmpo", "gpg", "group_dro", "grpo", "grpo_care", "gspo"),
            *("kl_cov", "lambda_grpo", "lead", "nthr", "raft", "raft_plus_plus"),
            *("reinforce_plus_plus", "reinforce_plus_plus_baseline", "reinforce_rej", "rloo"),
            *("robust_sampler", "tis", "unlikeliness", "ws_grpo"),
        )
    ),
)
TWO_LAYERS = (
    *("quickstart", "one_gpu", "qwen2.5_math_7b", "smollm2", "strict_fix"),
    *("study/evaluation", "study/igrpo", "study/mgrpo", "study/strict_fix"),
    *("methods/igrpo", "methods/mgrpo", "methods/murphy", "methods/score", "methods/strict_fix"),
)

YOUNGER = frozenset(
    f"methods/{name}"
    for name in (
        *("cal_grpo", "critique_grpo", "pag", "rltf_sd", "s2r", "sdpo", "self_verify", "spoc"),
    )
)
"""Recipes that came after the record was made, and have no numbers of before."""

CASES = {
    case.recipe: case
    for case in (
        *(Case(recipe=name, num_layers=1, updates=JOINT) for name in ONE_LAYER),
        *(Case(recipe=name, num_layers=2, updates=JOINT) for name in TWO_LAYERS),
        *(
            Case(recipe=name, num_layers=2, updates=SEQUENTIAL)
            for name in ("success_only", "study/success_only", "methods/success_only")
        ),
        Case(recipe="methods/mgrpo_three_layers", num_layers=3, updates=JOINT),
        Case(recipe="methods/mgrpo_replay", num_layers=2, updates=REPLAYED),
        Case(recipe="methods/think_twice", num_layers=2, updates=ALTERNATE),
        Case(recipe="methods/scrpo", num_layers=2, updates=POOLED),
        Case(recipe="methods/edge_grpo", num_layers=1, updates=REPAIRED),
        Case(recipe="methods/dagrpo", num_layers=1, updates=WITH_EXPERTS),
        Case(recipe="methods/veripo", num_layers=1, updates=ON_PAIRS),
    )
}
