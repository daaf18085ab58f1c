"""`mgrpo simulate`: seconds, tokens and busy shares of a recipe's steps, before any GPU is used.

Light to import: the command imports heavier packages when it runs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mgrpo.commands.plan import add_hardware, chosen_hardware, chosen_shape, option_error
from mgrpo.errors import ConfigError
from mgrpo.records.json_object import JsonObject

if TYPE_CHECKING:
    from mgrpo.config import RunConfig
    from mgrpo.plan.layouts import Ground

EXAMPLES = """\
examples:
  mgrpo simulate qwen2.5_math_7b --gpus 8xH100-80GB --parameters 7.6B
  mgrpo simulate qwen2.5_math_7b --gpus 8xH100-80GB --nodes 128 --parameters 7.6B \\
      --search --max-prompts 4096
  mgrpo simulate quickstart --measured runs/quickstart pipeline.max_staleness_steps=1
  mgrpo simulate qwen2.5_math_7b --cluster cluster/aws.yaml --rates measured.yaml \\
      --picture steps.svg

Rates are those of a GPU's data sheet with assumed losses, of a run that has been (--measured), or
given (--rates: docs/guides/simulation.md). What is printed is simulated, not measured.
"""


def add_simulate(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mgrpo simulate` to its parser."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's file, or its name")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="change a key of the recipe: steps=20"
    )
    add_hardware(parser)
    rates = parser.add_argument_group("rates")
    rates.add_argument(
        "--measured", metavar="RUN", type=Path, help="of this run: its folder, on its own machine"
    )
    rates.add_argument(
        "--rates", metavar="FILE", type=Path, help="YAML with keys that replace the others"
    )
    parser.add_argument("--steps", metavar="N", type=int, default=6, help="default: 6")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of lengths and failures")
    found = parser.add_argument_group("search for the best layout")
    found.add_argument("--search", action="store_true", help="try divisions of the GPUs and orders")
    found.add_argument(
        "--max-prompts", metavar="N", type=int, default=0,
        help="also 2, 4, ... times the recipe's problems per step, up to N",
    )  # fmt: skip
    found.add_argument(
        "--target-busy", metavar="SHARE", type=float, default=0.9,
        help="share of GPU time that is enough; default: 0.9",
    )  # fmt: skip
    found.add_argument(
        "--on-policy", action="store_true", help="leave out steps on an older policy's completions"
    )
    shown = parser.add_argument_group("output")
    shown.add_argument("--json", action="store_true", help="write the numbers as JSON")
    shown.add_argument("--picture", metavar="FILE.svg", type=Path, help="also draw the timeline")
    parser.set_defaults(run_command=run_simulate)


def run_simulate(args: argparse.Namespace) -> int:
    from mgrpo.config.load import load_recipe
    from mgrpo.plan.layouts import rates_of
    from mgrpo.plan.recipe import plan_recipe
    from mgrpo.plan.search import search
    from mgrpo.plan.show_simulated import outcome_json, outcome_lines, search_json, search_lines
    from mgrpo.plan.simulated import simulated
    from mgrpo.simulation.picture import svg_timeline

    check_options(args)
    config = load_recipe(args.recipe, args.overrides)
    config, ground = chosen_ground(args, config)
    recipe = plan_recipe(config)
    shown: dict[str, object]
    if args.search:
        found = search(
            ground,
            max_prompts=args.max_prompts,
            target_busy=args.target_busy,
            num_steps=args.steps,
            on_policy=args.on_policy,
        )
        if found is None:
            raise option_error("--search", args.recipe, "no layout fits into these GPUs' memory.")
        recipe, outcome = found.best.recipe, found.outcome
        lines, shown = [*search_lines(found, args.recipe), ""], search_json(found)
    else:
        rates = rates_of(ground, recipe)
        if rates is None:
            reason = (
                "does not fit into the GPUs' memory, or their speed is not known: see mgrpo plan."
            )
            raise option_error("RECIPE", args.recipe, reason)
        outcome = simulated(recipe, rates, num_steps=args.steps, seed=args.seed)
        lines, shown = [], {}
    if args.picture is not None:
        title = f"{recipe.name}, simulated: {outcome.seconds_per_step:.1f} s a step"
        args.picture.write_text(svg_timeline(outcome, title), encoding="utf-8")
    if args.json:
        print(json.dumps(shown | outcome_json(outcome), indent=2))
    else:
        print("\n".join([*lines, *outcome_lines(recipe, outcome, source_of(args))]))
    return 0


def check_options(args: argparse.Namespace) -> None:
    """
    Raises:
        ConfigError: a number is out of its range, or what is given is not enough.
    """
    for option, value, least in (
        ("--steps", args.steps, 1),
        ("--max-prompts", args.max_prompts, 0),
    ):
        if value < least:
            raise option_error(option, str(value), f"must be {least} or more.")
    if not 0 < args.target_busy <= 1:
        raise option_error("--target-busy", str(args.target_busy), "must be a share from 0 to 1.")
    if args.search and args.gpus is None and args.cluster is None:
        reason = "a search needs GPUs: --gpus 8xH100-80GB, or --cluster FILE."
        raise option_error("--search", "(given)", reason)


def chosen_ground(args: argparse.Namespace, config: RunConfig) -> tuple[RunConfig, Ground]:
    """The recipe with its layout, and what is known of the hardware and its rates."""
    from mgrpo.plan.layout import laid_out
    from mgrpo.plan.layouts import Ground
    from mgrpo.plan.measured_run import measured_tree
    from mgrpo.plan.recipe import plan_recipe

    given: JsonObject = {} if args.measured is None else measured_tree(args.measured)
    if args.rates is not None:
        given = with_file(given, args.rates)
    has_hardware = args.gpus is not None or args.cluster is not None
    if not has_hardware and given:
        return config, Ground(
            recipe=plan_recipe(config), shape=None, gpu=None, num_gpus=0, gpus_per_node=0,
            given=given, seed=args.seed,
        )  # fmt: skip
    hardware = chosen_hardware(args)
    count = hardware.gpu_count(hardware.nodes)
    config, _ = laid_out(config, count if args.cluster is None and args.nodes == 1 else 0)
    if not hardware.gpus:
        raise option_error("--cluster", hardware.description, "has no GPU.")
    return config, Ground(
        recipe=plan_recipe(config),
        shape=chosen_shape(args, config.model),
        gpu=hardware.smallest_gpu,
        num_gpus=hardware.gpu_count(hardware.grown),
        gpus_per_node=hardware.gpus_per_node,
        given=given or None,
        seed=args.seed,
    )


def with_file(given: JsonObject, file: Path) -> JsonObject:
    """Given rates with those of a YAML file in their place.

    Raises:
        ConfigError: the file cannot be read, or is no map.
    """
    from mgrpo.config.overrides import merged
    from mgrpo.config.recipe_file import read_tree

    try:
        tree: JsonObject = merged(given, read_tree(file))
    except ConfigError as error:
        raise ConfigError(error.faults, source=str(file)) from error
    return tree


def source_of(args: argparse.Namespace) -> str:
    """Where rates are from, in words."""
    parts = [f"measured in {args.measured}"] if args.measured is not None else []
    parts += [f"given in {args.rates}"] if args.rates is not None else []
    if args.gpus is not None or args.cluster is not None:
        parts.append("by the data sheet with assumed losses")
    return ", else ".join(reversed(parts))
