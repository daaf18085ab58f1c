"""policy/README.md: the model card of a trained policy, for people and for a model hub.

Its facts are the report's. The front matter has the keys of the hub's model cards
(huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from mgrpo.config.yaml_core import dump_yaml
from mgrpo.metrics.log import read_rollouts
from mgrpo.metrics.rows import Row
from mgrpo.models.catalog import HUB_NAME, ORIGINS, is_hub_name
from mgrpo.models.policy_tokenizer import load_tokenizer
from mgrpo.records.json_object import JsonObject
from mgrpo.report.curves import Curves, accuracy, phrases_note
from mgrpo.report.outcome import (
    Evaluation,
    accuracy_label,
    first_and_last,
    footnote,
    outcome_rows,
    outcome_sentence,
)
from mgrpo.report.page import facts_of
from mgrpo.report.run_data import RunData, load_run
from mgrpo.storage.policies import BEST_DIR, POLICY_DIR, best_record
from mgrpo.storage.provenance import HUB_COMMITS
from mgrpo.types import Completion

CARD_FILE = "README.md"
FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
MAX_CURVE_ROWS = 12
TAGS = ("mgrpo", "reinforcement-learning", "self-correction")


def write_cards(run_dir: Path) -> list[Path]:
    """Write the cards of the policy at a run's end and of the best one, where they are.

    Raises:
        RunDirectoryError: a file of the run is damaged.
    """
    run, record = load_run(run_dir), best_record(run_dir)
    before, after = first_and_last(run.evaluations)
    policies = {POLICY_DIR: (after, len(run.metrics))}
    if record is not None:
        of_best = [row for row in run.evaluations if row["step"] == record.num_steps]
        policies[BEST_DIR] = (of_best[-1] if of_best else None, record.num_steps)
    cards = []
    for name, (evaluation, num_steps) in policies.items():
        if (run_dir / name).is_dir():
            cards.append(run_dir / name / CARD_FILE)
            text = card(run, run_dir / name, before, evaluation, num_steps)
            cards[-1].write_text(text, encoding="utf-8")
    return cards


def card(
    run: RunData,
    policy: Path,
    before: Evaluation | None,
    after: Evaluation | None,
    num_steps: int,
) -> str:
    """The card's text.

    Args:
        policy: the folder, for its tokenizer.
        before: the evaluation before training.
        after: that of this policy; None: it was not evaluated.
        num_steps: that trained it.
    """
    measured = [row for row in (before, after) if row is not None]
    parts = [
        f"---\n{dump_yaml(front_matter(run))}---\n",
        f"# {run.name}\n",
        introduction(run, num_steps, measured),
        *accuracy_part(before, after),
        *method_part(run, num_steps),
        *curve_part(run),
        *prompt_part(run, policy),
        *version_part(run),
    ]
    return "\n".join(parts)


def front_matter(run: RunData) -> JsonObject:
    """What is unknown is left out."""
    origin = origin_of(str((run.config.get("model") or {}).get("path") or ""))
    data = run.config.get("data") or {}
    names = (str((data.get(key) or {}).get("path") or "") for key in ("train", "heldout"))
    hub_data = list(dict.fromkeys(name for name in names if HUB_NAME.fullmatch(name)))
    return {
        **origin,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": list(TAGS),
        **({"datasets": hub_data} if hub_data else {}),
    }


def origin_of(model: str) -> dict[str, str]:
    """`base_model` and `license` of a recipe's model, as far as they are known: of a named model, a
    hub name, or a folder whose card says them, such as another run's policy."""
    if model in ORIGINS:
        return dict(ORIGINS[model])
    written = card_of(model)
    known = {key: str(written[key]) for key in ("base_model", "license") if written.get(key)}
    return ({"base_model": model} if is_hub_name(model) else {}) | known


def card_of(model: str) -> JsonObject:
    """The front matter of a model's card on this machine; {} without one."""
    file: object = Path(model).expanduser() / CARD_FILE
    if is_hub_name(model):
        from huggingface_hub import try_to_load_from_cache

        file = try_to_load_from_cache(model, CARD_FILE)
    if not isinstance(file, str | Path) or not Path(file).is_file():
        return {}
    found = FRONT_MATTER.match(Path(file).read_text(encoding="utf-8", errors="replace"))
    try:
        front = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError:
        return {}
    return front if isinstance(front, dict) else {}


def introduction(run: RunData, num_steps: int, measured: Sequence[Evaluation]) -> str:
    method, paper = run.config.get("method") or "", run.config.get("paper") or ""
    source = f" ({paper})" if paper else ""
    model = public_name(str((run.config.get("model") or {}).get("path") or "an unknown model"))
    begun = (run.config.get("model") or {}).get("from_run") or ""
    first = f", which is the policy of the run {begun}" if begun else ""
    description = run.config.get("description") or ""
    return (
        f"{model}{first}, trained for {num_steps} steps by {method}{source} with "
        f"mgrpo: {description or run.name}. {outcome_sentence(measured)}\n"
    )


def public_name(path: str) -> str:
    """A name, or the last parts of a path: a card says nothing of folders of somebody's machine."""
    return path if not Path(path).is_absolute() else "/".join(Path(path).parts[-2:])


def accuracy_part(before: Evaluation | None, after: Evaluation | None) -> Iterator[str]:
    measured = after or before
    if measured is None:
        return
    yield "## Accuracy on held-out problems\n"
    heads = ("", "Before training", "After training", "Change")
    rows = [
        (f"*{row.label}*" if row.heading else row.label, row.before, row.after, row.change)
        for row in outcome_rows(before, after)
    ]
    yield table(heads, rows)
    yield f"{footnote(measured)}\n"
    counts = [
        (when, accuracy_label(turn), count)
        for when, row in (("before", before), ("after", after))
        if row is not None
        for turn, count in enumerate(counts_of(row))
    ]
    if counts:
        yield table(("Training", "Turn", "Right of all"), counts)
        yield (
            "Counts are over attempts with each of the guidance phrases of the evaluation: "
            f"{len(measured.get('phrases') or []) or 1} after training.\n"
        )


def counts_of(evaluation: Evaluation) -> list[str]:
    """Right answers of each turn and all answers: "35 of 112"; [] where only one turn answers."""
    counts = []
    moves_by_turn = evaluation.get("transitions") or []
    for place, kinds in enumerate(moves["counts"] for moves in moves_by_turn if "counts" in moves):
        stayed, gained = kinds["right_to_right"], kinds["wrong_to_right"]
        lost = kinds["right_to_wrong"]
        total = stayed + gained + lost + kinds["wrong_to_wrong"]
        if place == 0:
            counts.append(f"{stayed + lost:,} of {total:,}")
        counts.append(f"{stayed + gained:,} of {total:,}")
    return counts


def method_part(run: RunData, num_steps: int) -> Iterator[str]:
    config = run.config
    learner, objective = config.get("learner") or {}, config.get("objective") or {}
    data = config.get("data") or {}
    facts: dict[str, object] = {
        **{name: value for name, value in facts_of(run).items() if value},
        "Model": public_name(facts_of(run)["Model"]),
        "Steps of this policy": num_steps,
        "Problems per step": config.get("prompts_per_step"),
        "Completions of a prompt, by layer": ", ".join(
            f"{layer['name']} {layer['group_size']}" for layer in config.get("layers") or []
        ),
        "Loss": (objective.get("loss") or {}).get("type"),
        "Learning rate": learner.get("learning_rate"),
        "Seed": config.get("seed"),
        "Training data": source_of(data.get("train") or {}),
        "Held-out data": source_of(data.get("heldout") or {}),
    }
    yield "## Method\n"
    yield table(
        ("", ""), [(name, str(value)) for name, value in facts.items() if value not in ("", None)]
    )


def source_of(source: JsonObject) -> str:
    """The data of a section: its name without local folders; generated tasks by their names."""
    if source.get("sources"):
        return " + ".join(source_of(one) for one in source["sources"])
    tasks = ", ".join(task["name"] for task in source.get("tasks") or [])
    return f"reasoning-gym: {tasks}" if tasks else public_name(str(source.get("path") or ""))


def curve_part(run: RunData) -> Iterator[str]:
    for chart in accuracy(Curves(run)):
        labels = [one.label for one in chart.series]
        yield f"## {chart.title}\n"
        yield table(("Step", *labels), list(thinned(chart.rows)))
        yield (
            "Columns without `held-out`: completions sampled for training. With it: problems that "
            f"are never trained on{phrases_note(run.evaluations)}.\n"
        )


def thinned(rows: Sequence[Sequence[str]]) -> Iterator[Sequence[str]]:
    """At most MAX_CURVE_ROWS of the rows, evenly, with the first and the last."""
    count = min(MAX_CURVE_ROWS, len(rows))
    for place in range(count):
        yield rows[round(place * (len(rows) - 1) / max(count - 1, 1))]


def prompt_part(run: RunData, policy: Path) -> Iterator[str]:
    """A real problem with its attempt and correction, as the newest recorded step has them."""
    chain = recorded_chain(run)
    if not chain:
        return
    tokenizer: Any = load_tokenizer(str(policy))
    yield "## Prompts\n"
    yield (
        "What the policy read and wrote in training, every special token shown. Send prompts of "
        "this form as they are: encode them with `add_special_tokens=False`. `mgrpo chat` and "
        "`mgrpo serve` do it.\n"
    )
    for one in chain:
        layer = run.layer_label(one.layer)
        prompt = tokenizer.decode(one.prompt_token_ids.tolist(), skip_special_tokens=False)
        written = tokenizer.decode(one.token_ids.tolist(), skip_special_tokens=False)
        yield f"{layer} reads\n\n{fenced(prompt)}\nand writes\n\n{fenced(written)}"
    for depth, layer in enumerate(run.config.get("layers") or []):
        phrases = (layer.get("guidance") or {}).get("phrases") or []
        if depth and phrases:
            lines = "".join(f"- {phrase}\n" for phrase in phrases)
            yield f"Guidance phrases of {run.layer_label(depth + 1)}:\n\n{lines}"


def recorded_chain(run: RunData) -> list[Completion]:
    """A first attempt and a correction of it, and of that, from the newest recorded step."""
    if not run.rollouts:
        return []
    completions = read_rollouts(run.rollouts[max(run.rollouts)])
    deepest = max(completions, key=lambda one: one.layer, default=None)
    by_id = {one.completion_id: one for one in completions}
    chain: list[Completion] = []
    while deepest is not None:
        chain.insert(0, deepest)
        deepest = by_id.get(deepest.parent_id or "")
    return chain


def fenced(text: str) -> str:
    """Text as a block of Markdown, whatever fences it has inside."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}\n"


def version_part(run: RunData) -> Iterator[str]:
    facts: Row = dict(run.environment)
    packages = facts.get("packages") or {}
    commits = facts.get(HUB_COMMITS) or {}
    shown = {
        "base model's commit": commits.get("model") if isinstance(commits, dict) else None,
        "mgrpo": facts.get("mgrpo"),
        "revision": facts.get("git_revision"),
        "Python": facts.get("python"),
        **(packages if isinstance(packages, dict) else {}),
    }
    yield "## Versions\n"
    yield table(("", ""), [(name, str(value)) for name, value in shown.items() if value])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    cells = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
