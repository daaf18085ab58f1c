"""`mgrpo eval`: score a model, or a run's policy, on a recipe's held-out problems.

With a second policy to compare with, both answer the same problems with the same recipe and
the same seeds, one after the other. A suite has the problems of a benchmark, its grader and how it
is sampled.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from mgrpo.commands.evaluate_output import Scored, form_of, show, write_completions
from mgrpo.commands.runs import local_run
from mgrpo.config import EvaluationConfig, RunConfig
from mgrpo.config.evaluation import DecodeSelectConfig, guidance_faults
from mgrpo.config.explain import explain
from mgrpo.config.layers import later_layers
from mgrpo.config.load import load_recipe
from mgrpo.config.suites import Suite, load_suite, suite_recipe
from mgrpo.errors import ConfigError, ConfigFault
from mgrpo.models.catalog import DESCRIPTIONS, is_hub_name
from mgrpo.storage.policies import policy_of

DEFAULT_RECIPE = "quickstart"
SUITE_RECIPE = "evaluate"
"""The recipe whose prompts a model gets that is no run, where a suite has the problems."""


def evaluate_command(
    target: str,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    suite: str | None = None,
    max_problems: int | None = None,
    decoding: str | None = None,
    settings: Mapping[str, object] | None = None,
    select_ratio: float | None = None,
    seed: int | None = None,
    against: str | None = None,
    as_json: bool = False,
    as_markdown: bool = False,
    output: Path | None = None,
    save_completions: Path | None = None,
) -> int:
    """Evaluate, compare if asked to, and show the numbers.

    All errors in the arguments are raised before an engine starts.

    Args:
        target: a run's directory or name, a prepared model's name, a local model or a hub name.
        recipe: the one whose problems, layers and checks are used. None takes the run's own, or
            that of any model.
        overrides: "a.b=value" each.
        suite: a suite, whose problems, grader and sampling take the place of the recipe's.
        max_problems: overrides evaluation.max_problems.
        decoding: overrides evaluation.decoding.
        settings: overrides further keys of the evaluation section.
        select_ratio: overrides evaluation.decode_select.ratio; also votes by DeSel.
        seed: overrides the recipe's; seeds sampling, guidance and bootstrap.
        against: a second policy, named like `target`, scored by the same recipe.
        as_json: show one JSON object and nothing else.
        as_markdown: show a block of Markdown and nothing else.
        output: a file to write to, instead of standard output.
        save_completions: a file for every completion, one JSON object a line; those of `against`
            go to FILE.against.jsonl beside it.
    """
    benchmark = None if suite is None else load_suite(suite)
    config, run_dir = resolve_target(target, recipe, overrides, benchmark)
    asked = {"max_problems": max_problems, "decoding": decoding, **(settings or {})}
    changes = {name: value for name, value in asked.items() if value is not None}
    if select_ratio is not None:
        select = config.evaluation.decode_select or DecodeSelectConfig()
        changes["decode_select"] = {**select.model_dump(), "ratio": select_ratio}
    config = with_evaluation(config, changes)
    if seed is not None:
        if not 0 <= seed < 2**32:  # as the key of a recipe
            fault = ConfigFault("--seed", str(seed), "must be from 0 to 4294967295.")
            raise ConfigError([fault], source="the command")
        config = config.model_copy(update={"seed": seed})
    rival = rival_target(against, config) if against is not None else None
    form = form_of(as_json, as_markdown, output)
    check_writable(output, "--output")
    check_writable(save_completions, "--save-completions")

    scored = [run_evaluation(config, run_dir)]
    keep(scored[0], save_completions)
    if rival is not None:
        scored.append(run_evaluation(*rival))
        keep(scored[1], beside(save_completions))
    with ExitStack() as stack:
        stream = stack.enter_context(output.open("w", encoding="utf-8")) if output else sys.stdout
        show(scored, form, stream)
    if output is not None:
        note(f"written to {output}")
    for score in benchmark.scores if benchmark is not None else ():
        note(f"published: {score}")
    return 0


def resolve_target(
    target: str, recipe: str | None, overrides: Sequence[str], suite: Suite | None
) -> tuple[RunConfig, Path | None]:
    """The recipe with the target as its model, and the run's directory if it is one."""
    policy, run_dir = policy_and_run(target)
    base: str | Path = recipe or (DEFAULT_RECIPE if suite is None else SUITE_RECIPE)
    if recipe is None and run_dir is not None:
        base = run_dir / "config.yaml"
    loaded = load_recipe(base, overrides) if suite is None else suite_recipe(suite, base, overrides)
    revision = loaded.model.revision if is_hub_name(policy) else None
    return with_model(loaded, policy, revision), run_dir


def policy_and_run(target: str) -> tuple[str, Path | None]:
    """The model that a target stands for, and the run's directory if it is one.

    A run may go by its name, if no model is called so.
    """
    run_dir = Path(target)
    if not run_dir.exists() and target not in DESCRIPTIONS:
        run_dir = local_run(target) or run_dir
    if (run_dir / "config.yaml").is_file():
        return str(policy_of(run_dir)), run_dir
    return target, None


def rival_target(against: str, config: RunConfig) -> tuple[RunConfig, Path | None]:
    """The same recipe with the second policy as its model."""
    from mgrpo.models.catalog import resolve_model

    policy, run_dir = policy_and_run(against)
    rival = with_model(config, policy, None)
    resolve_model(rival.model.path)  # now, not after minutes of scoring the first policy
    if run_dir is not None and load_recipe(run_dir / "config.yaml").layers != config.layers:
        note(
            f"{against} was trained by a recipe with other layers; both policies are scored by "
            "the layers of the first one's recipe (--recipe chooses another)"
        )
    return rival, run_dir


def with_model(config: RunConfig, path: str, revision: str | None) -> RunConfig:
    model = config.model.model_copy(update={"path": path, "revision": revision})
    return config.model_copy(update={"model": model})


def with_evaluation(config: RunConfig, changes: Mapping[str, object]) -> RunConfig:
    """The recipe with its evaluation section changed.

    Raises:
        ConfigError: lists every setting that makes the evaluation impossible or has no effect.
    """
    try:
        settings = EvaluationConfig.model_validate({**config.evaluation.model_dump(), **changes})
    except ValidationError as error:
        faults = [
            ConfigFault(f"evaluation.{p.path}", p.value, p.reason, p.suggestion)
            for p in explain(error, EvaluationConfig)
        ]
        raise ConfigError(faults, source="the evaluation") from error
    faults = guidance_faults(settings, config.layers)
    if config.data.heldout is None:
        faults.append(
            ConfigFault(
                "data.heldout",
                "null",
                "there are no held-out problems to score.",
                "Give the recipe a data.heldout section, or name another with --recipe.",
            )
        )
    if "temperature" in changes and settings.decoding == "greedy":
        faults.append(
            ConfigFault(
                "evaluation.temperature",
                f"{settings.temperature:g}",
                "has no effect with decoding: greedy.",
                "Add --decoding sampled, or leave --temperature out.",
            )
        )
    if "feedback" in changes and not any(
        layer.guidance.feedback_tokens for layer in later_layers(config.layers)
    ):
        faults.append(
            ConfigFault(
                "evaluation.feedback",
                str(settings.feedback),
                "has no effect: no layer of the recipe has guidance: {from: check}.",
                "Leave it out, or name another recipe with --recipe.",
            )
        )
    if faults:
        raise ConfigError(faults, source="the evaluation")
    return config.model_copy(update={"evaluation": settings})


def check_writable(file: Path | None, option: str) -> None:
    """Refuse an unwritable file before the evaluation starts."""
    if file is None:
        return
    reason = ""
    if file.is_dir():
        reason = "is a folder."
    elif not file.parent.is_dir():
        reason = f"there is no folder {file.parent}."
    if reason:
        raise ConfigError(
            [ConfigFault(option, str(file), reason, "Name a file in an existing folder.")],
            source="the command line",
        )


def run_evaluation(config: RunConfig, run_dir: Path | None) -> Scored:
    """Start engines, evaluate once, stop them."""
    from mgrpo.evaluation.evaluate import evaluate, evaluation_row
    from mgrpo.plan.layout import laid_out_here
    from mgrpo.training.stop_signals import signals_as_errors
    from mgrpo.training.system import start_system

    config, layout = laid_out_here(config, with_learner=False)
    if layout:
        note(f"layout: {layout}")
    with tempfile.TemporaryDirectory(prefix="mgrpo-eval-") as folder, signals_as_errors():
        logs = (run_dir or Path(folder)) / "logs"
        with start_system(
            config, logs_to=logs, with_learner=False, with_training=False, note=note
        ) as system:
            note(f"evaluating {config.model.path} on {len(system.heldout)} problems")
            evaluation, seconds = evaluate(
                system.rollout, system.heldout, config.evaluation, key="eval"
            )
    row = evaluation_row(evaluation, step=0, label="eval", seconds=seconds, layers=config.layers)
    return Scored(config.model.path, evaluation, row)


def keep(scored: Scored, file: Path | None) -> None:
    """Write every completion, one JSON object a line, as rollouts are."""
    if file is None:
        return
    completions = [*scored.evaluation.completions, *scored.evaluation.anchors]
    write_completions(completions, file)
    note(f"{len(completions)} completions written to {file}")


def beside(file: Path | None) -> Path | None:
    """Where the second policy's completions go: out.jsonl -> out.against.jsonl."""
    return None if file is None else file.with_suffix(f".against{file.suffix}")


def note(text: str) -> None:
    """Progress, apart from the results."""
    print(text, file=sys.stderr)
