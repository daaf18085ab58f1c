"""A run that has been, as the rates of a simulation."""

from __future__ import annotations

from pathlib import Path

from mgrpo.config.load import load_recipe
from mgrpo.plan.recipe import plan_recipe
from mgrpo.plan.simulated import layout_of, workload_of
from mgrpo.records.json_object import JsonObject
from mgrpo.simulation.measured import measured_rates
from mgrpo.storage.run_directory import CONFIG_FILE, find_run


def measured_tree(run_dir: Path) -> JsonObject:
    """The rates of a run that has been, as a tree of `Rates`.

    Raises:
        RunDirectoryError: there is no such run, or it cannot be measured.
    """
    folder = find_run(str(run_dir))
    recipe = plan_recipe(load_recipe(folder / CONFIG_FILE))
    rates = measured_rates(
        folder,
        recipe.layers,
        layout_of(recipe),
        work_of=lambda known: workload_of(recipe, known),
        max_running=recipe.engines.max_num_seqs,
    )
    known = {"engine", "learner", "weights_s", "prompt_tokens", "layers"}
    return rates.model_dump(mode="json", include=known, exclude_none=True)
