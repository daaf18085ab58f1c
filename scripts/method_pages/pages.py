"""The generated parts of the methods' pages: what only lists.

A page's prose is written by hand, in the README.md of the method's folder. Between
`<!-- generated: NAME -->` and `<!-- end -->` stands a part that `python -m scripts.method_pages`
writes from the recipe, the plug-ins' classes and docs/methods/curves.json (`python -m
benchmarks.method_curves`), and nothing else of the page is touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.config.parts import HOMES
from mgrpo.config.sources import stacked
from mgrpo.methods.catalog import Key, MethodFacts, PluginFacts, method_facts, method_files
from mgrpo.registry import declared
from scripts.method_pages.curves import Curve, Curves, method_digest, read_curves
from scripts.method_pages.figure import curve_figure
from scripts.method_pages.metrics import method_metrics

CURVES = "curves.json"
FIGURES = "curves"
PLAIN = "grpo"
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
GENERATED = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
UP = "../../.."  # from a method's folder to the repository


def write_pages(repository: Path) -> list[Path]:
    """Write the generated parts of every page and of the index, and the figures.

    Returns:
        The files.

    Raises:
        ValueError: a page has other generated parts than it should have.
    """
    folder = repository / "docs" / "methods"
    curves = read_curves(folder / CURVES)
    texts: dict[Path, str] = {}
    facts = []
    for name, file in method_files().items():
        one = method_facts(file, name)
        facts.append(one)
        page = repository / "mgrpo" / "methods" / name / "README.md"
        texts[page] = filled(page, parts_of_page(one, load_recipe(file), curves.get(name, [])))
        if name in curves:
            plain = curves.get(PLAIN, []) if name != PLAIN else []
            figure = curve_figure(one.name, curves[name], plain)
            texts[folder / FIGURES / f"{name}.svg"] = figure
    index = folder / "README.md"
    texts[index] = filled(index, {"methods": index_table(facts, curves)})
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(texts)


def filled(page: Path, parts: Mapping[str, str]) -> str:
    """A page's text with its generated parts as they are to be.

    Raises:
        ValueError: its markers name other parts than these, each once.
    """
    text = page.read_text(encoding="utf-8")
    found = [name for _, name, _ in GENERATED.findall(text)]
    if sorted(found) != sorted(parts):
        raise ValueError(f"{page}: marks the parts {found}, and there are {list(parts)}")
    return GENERATED.sub(lambda marks: f"{marks[1]}\n{parts[marks[2]]}\n{marks[3]}", text)


def parts_of_page(one: MethodFacts, config: RunConfig, runs: Sequence[Curve]) -> dict[str, str]:
    """The generated parts of a method's page."""
    parts = {
        "options": options(one),
        "metrics": metrics(config, one.plugins),
        "measured": measured(one.id, config, runs),
    }
    return {name: "\n\n".join(blocks) for name, blocks in parts.items()}


def paper_link(paper: str) -> str:
    """arXiv ids become links."""
    if not paper:
        return "no paper of its own"
    return ARXIV.sub(lambda found: f"[{found[0]}](https://arxiv.org/abs/{found[1]})", paper)


def options(one: MethodFacts) -> Iterator[str]:
    """What the recipe sets, then every plug-in with all of its settings."""
    if len(one.chain) > 1:
        yield "The chain:"
        yield "\n".join(f"- {words}" for words in one.chain)
    keys = [*one.differences, *one.training]
    if keys:
        yield "The recipe sets, beside plain GRPO's defaults:"
        yield key_table(keys)
    elif not one.plugins:
        yield "Every key of the method is at its default."
    for plugin in one.plugins:
        yield f"### {plugin.use}"
        yield from plugin_blocks(plugin)
    for phase in one.phases:
        when = f"From step {phase['from_step']} on{turns(phase)}"
        yield f"{when}, {phase['name']}: `{phase['changes']}`."


def turns(phase: Mapping[str, Any]) -> str:
    """How long a phase lasts, where it takes turns with the recipe itself."""
    if not phase.get("num_steps"):
        return ""
    again = f", again every {phase['every_steps']}" if phase.get("every_steps") else ""
    return f" for {phase['num_steps']} steps{again}"


def plugin_blocks(plugin: PluginFacts) -> Iterator[str]:
    """A plug-in's file, hooks, measurements and keys."""
    where = "all layers" if plugin.layers is None else f"layer {', '.join(plugin.layers)}"
    required = f" Required measurements: {', '.join(plugin.requires)}." if plugin.requires else ""
    hooks = ", ".join(plugin.hooks) or "none"
    file = source_file(plugin.use)
    yield f"[{file}]({UP}/{file}), on {where}. Hooks: {hooks}.{required}"
    if plugin.settings:
        yield key_table(plugin.settings)


def source_file(use: str) -> str:
    """A plug-in's file, from the repository's root."""
    targets = [declared(kind)[use] for kind in HOMES if use in declared(kind)]
    return (targets or [use])[0].partition(":")[0].replace(".", "/") + ".py"


def key_table(keys: Sequence[Key]) -> str:
    rows = [
        (
            f"`{key.path}`",
            value(key.value),
            "needed" if key.is_required else value(key.default),
            key.meaning,
        )
        for key in keys
    ]
    return table(("Key", "Here", "Default", "Meaning"), rows)


def value(content: object) -> str:
    """As YAML would have it; a text as it is."""
    if content is None:
        return "null"
    if isinstance(content, bool):
        return str(content).lower()
    return f"`{content}`" if content != "" else '`""`'


def metrics(config: RunConfig, plugins: Sequence[PluginFacts]) -> Iterator[str]:
    found = method_metrics(config, list(plugins))
    if not found:
        yield "None beside those of every run."
        return
    yield table(("Metric", "Meaning"), [(f"`{name}`", text) for name, text in found.items()])


def measured(name: str, config: RunConfig, runs: Sequence[Curve]) -> Iterator[str]:
    """The recorded curve, its numbers and its conditions."""
    if not runs:
        yield (
            "No curve has been recorded yet. "
            f"`python -m benchmarks.method_curves {name}` trains the recipe a few steps and keeps "
            "one."
        )
        return
    yield f"![Mean reward of first attempts by step]({UP}/docs/methods/{FIGURES}/{name}.svg)"
    chain = ""
    if any(one.final_accuracy != one.accuracy for one in runs):
        ends = from_to([(one.final_accuracy[0], one.final_accuracy[-1]) for one in runs], 1)
        chain = f"; after the last turn of its chain {ends}"
    held_out = from_to([(one.accuracy[0], one.accuracy[-1]) for one in runs], 1)
    yield (
        f"Sampled first attempts: {from_to([one.sampled_accuracy for one in runs])} right. Greedy "
        f"ones on held-out problems: {held_out}{chain}. {fmean(one.step_s for one in runs):.1f} s "
        f"a step.{counted_in(config)}"
    )
    first = runs[0]
    earlier = " The recipe has changed since." if first.digest != method_digest(config) else ""
    seeds = "one seed" if len(runs) == 1 else f"{len(runs)} seeds"
    commits = ", ".join(dict.fromkeys(one.commit for one in runs))
    yield (
        f"{len(first.reward)} steps with {seeds} on {first.cpu}, commit {commits}; over the "
        f"recipe: `{' '.join(first.settings)}`.{earlier} Dashed: plain GRPO with the same "
        f"settings. [How to read these numbers]({UP}/docs/methods/README.md#measured)."
    )


def from_to(pairs: Sequence[tuple[float, float]], digits: int = 0) -> str:
    """Means before and after over seeds, and after training the lowest and the highest of these."""
    before, after = (fmean(values) for values in zip(*pairs, strict=True))
    text = f"{before:.{digits}%} → {after:.{digits}%}"
    ends = [end for _, end in pairs]
    return text if len(pairs) == 1 else f"{text} ({min(ends):.{digits}%} to {max(ends):.{digits}%})"


def counted_in(config: RunConfig) -> str:
    """What else than plain samples is among those whose rewards are shown."""
    if any(source.type == "dynamic" for source in stacked(config.source)):
        return " Groups that were all right or all wrong were sampled again and do not count."
    if any(entry.use == "guided_error_correction" for entry in config.plugins):
        return " Repaired attempts are among them, as they are after the repair."
    return ""


def index_table(methods: Sequence[MethodFacts], curves: Curves) -> str:
    """Every method in a row."""
    rows = [
        (
            f"[{method.name}](../../mgrpo/methods/{method.id}/README.md)",
            method.changes,
            paper_link(method.paper),
            ", ".join(f"`{plugin.use}`" for plugin in method.plugins) or "keys alone",
            sampled_words(curves.get(method.id, [])),
        )
        for method in methods
    ]
    return table(("Method", "Idea", "Source", "Plug-ins", "Sampled"), rows)


def sampled_words(runs: Sequence[Curve]) -> str:
    """Accuracy of sampled first attempts, at the beginning and at the end."""
    return from_to([one.sampled_accuracy for one in runs]) if runs else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(cell(text) for text in row)} |" for row in rows]
    return "\n".join(lines)


def cell(text: str) -> str:
    """On one line, with nothing that ends a cell."""
    return " ".join(text.replace("|", "\\|").split())
