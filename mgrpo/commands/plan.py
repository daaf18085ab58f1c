"""`mgrpo plan`: placement, memory and step sizes, before any GPU is used.

Light to import: the command imports heavier packages when it runs.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from mgrpo.errors import ConfigError, ConfigFault, HubUnreachable, ModelError

if TYPE_CHECKING:
    from mgrpo.config import ModelConfig
    from mgrpo.plan.hardware import Hardware
    from mgrpo.plan.shape import ModelShape

EXAMPLES = """\
examples:
  mgrpo plan qwen2.5_math_7b --gpus 8xH100-80GB
  mgrpo plan qwen2.5_math_7b --gpus 8xH100-80GB --nodes 2 learner.num_ranks=8
  mgrpo plan qwen2.5_math_7b --cluster cluster/aws.yaml
  mgrpo plan qwen2.5_math_7b --gpus 8xA100-40GB --parameters 7.6B --json

Exit code 0: everything is placed and fits by these estimates; 2: something does not.
"""
DOES_NOT_FIT_EXIT_CODE = 2


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mgrpo plan` to its parser."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's file, or its name")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="change a key of the recipe: steps=20"
    )
    add_hardware(parser)
    parser.add_argument("--json", action="store_true", help="write the numbers as JSON")
    parser.set_defaults(run_command=run_plan)


def add_hardware(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which GPUs there are, and the model's size."""
    parser.add_argument(
        "--gpus", metavar="8xH100-80GB", help="the GPUs of each node: how many, which, memory"
    )
    parser.add_argument("--nodes", metavar="N", type=int, default=1, help="number of such nodes")
    parser.add_argument(
        "--cluster",
        metavar="FILE",
        help="a cluster file instead: Ray's launcher YAML, a RayCluster or a RayJob",
    )
    parser.add_argument(
        "--parameters",
        metavar="7B",
        help="the model's size, if its config.json is not available",
    )


def run_plan(args: argparse.Namespace) -> int:
    from mgrpo.config.load import load_recipe
    from mgrpo.plan.build import make_plan
    from mgrpo.plan.layout import laid_out
    from mgrpo.plan.layouts import Ground, compare_layouts
    from mgrpo.plan.recipe import plan_recipe
    from mgrpo.plan.show import plan_json, plan_text

    hardware = chosen_hardware(args)
    config = load_recipe(args.recipe, args.overrides)
    is_one_machine = args.cluster is None and args.nodes == 1
    config, layout = laid_out(config, hardware.gpu_count(hardware.nodes) * is_one_machine)
    recipe, shape = plan_recipe(config), chosen_shape(args, config.model)
    plan = make_plan(recipe, shape, hardware, layout=layout)
    layouts = []
    if plan.own is not None and not recipe.cluster.has_roles:
        layouts = compare_layouts(
            Ground(
                recipe=recipe,
                shape=shape,
                gpu=hardware.smallest_gpu,
                num_gpus=hardware.gpu_count(hardware.nodes),
                gpus_per_node=hardware.gpus_per_node,
            )
        )
    print(json.dumps(plan_json(plan, layouts), indent=2) if args.json else plan_text(plan, layouts))
    return DOES_NOT_FIT_EXIT_CODE if plan.fails else 0


def chosen_hardware(args: argparse.Namespace) -> Hardware:
    """From --gpus and --nodes, or from --cluster.

    Raises:
        ConfigError: neither is given, or they contradict each other.
    """
    from mgrpo.plan.hardware import file_hardware, named_hardware

    if args.nodes < 1:
        raise option_error("--nodes", str(args.nodes), "must be 1 or more.")
    if args.cluster is not None:
        if args.nodes != 1:
            raise option_error("--nodes", str(args.nodes), "the cluster file states the number.")
        return file_hardware(args.cluster, args.gpus)
    if args.gpus is None:
        reason = "a plan needs GPUs to plan for: --gpus 8xH100-80GB, or --cluster FILE."
        raise option_error("--gpus", "(not given)", reason)
    return named_hardware(args.gpus, args.nodes)


def chosen_shape(args: argparse.Namespace, model: ModelConfig) -> ModelShape:
    """The model's shape, or a substitute of the given size.

    Raises:
        ModelError: the model cannot be found, or is not in the cache while there is no network.
    """
    from mgrpo.plan.shape import find_shape, parse_parameters, shape_like

    if args.parameters is not None:
        return shape_like(parse_parameters(args.parameters))
    try:
        return find_shape(model.path, model.revision)
    except HubUnreachable as error:
        raise ModelError(f"{error} Or give its size: --parameters 7B.") from error


def option_error(option: str, value: str, reason: str) -> ConfigError:
    return ConfigError([ConfigFault(option, value, reason)], source="the command")
