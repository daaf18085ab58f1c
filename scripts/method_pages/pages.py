"""The page of each method's folder, and their index, generated from the code.

`python -m scripts.method_pages` writes them; nothing on them is written by hand. The figures and
the accuracies come from docs/methods/curves.json (`python -m benchmarks.method_curves`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgrpo.config import RunConfig
from mgrpo.config.load import load_recipe
from mgrpo.config.parts import HOMES
from mgrpo.methods.catalog import (
    SENTENCE_END,
    Key,
    MethodFacts,
    PluginFacts,
    method_facts,
    method_files,
)
from mgrpo.methods.docstrings import paragraphs, parts_of, parts_of_comment
from mgrpo.registry import declared
from scripts.method_pages.curves import WINDOW, Curve, method_digest, read_curves
from scripts.method_pages.figure import curve_figure
from scripts.method_pages.formula import loss_lines
from scripts.method_pages.metrics import method_metrics

CURVES = "curves.json"
FIGURES = "curves"
PLAIN = "grpo"
IDEA_SENTENCES = 3
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
UP = "../../.."  # from a method's folder to the repository
SWITCH = (
    "Greedy says little: the shipped policy opens an answer in a quick way, right in a third of "
    "cases, or in a careful one, right in most, and greedy accuracy is that of the likelier one. "
    "It stays near a third, and wanders, until the careful one passes one half, and then jumps."
)


def write_pages(repository: Path) -> list[Path]:
    """Write every page, the index and the figures; returns the files."""
    folder = repository / "docs" / "methods"
    curves = read_curves(folder / CURVES)
    texts: dict[Path, str] = {}
    facts = []
    for name, file in method_files().items():
        one = method_facts(file, name)
        facts.append(one)
        page = repository / "mgrpo" / "methods" / name / "README.md"
        texts[page] = method_page(one, load_recipe(file), curves.get(name))
        if name in curves:
            plain = curves.get(PLAIN) if name != PLAIN else None
            figure = curve_figure(one.name, curves[name], plain)
            texts[folder / FIGURES / f"{name}.svg"] = figure
    texts[folder / "README.md"] = index_page(facts, curves)
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(texts)


def method_page(one: MethodFacts, config: RunConfig, curve: Curve | None) -> str:
    blocks = [
        f"# {one.name}",
        " · ".join([paper_link(one.paper), recipe_link(), f"`mgrpo train methods/{one.id}`"]),
        *idea(one.comment, one.name),
        "## Formula",
        *formula(config, one.plugins),
        "## Options",
        *options(one),
        "## Metrics it adds",
        *metrics(config, one.plugins),
        "## What is reconstructed",
        *reconstructed(one),
        "## Differences from the paper",
        absent(one),
        "## Measured",
        *measured(one.id, config, curve),
    ]
    return "\n\n".join(blocks) + "\n"


def paper_link(paper: str) -> str:
    """arXiv ids become links."""
    if not paper:
        return "no paper of its own"
    return ARXIV.sub(lambda found: f"[{found[0]}](https://arxiv.org/abs/{found[1]})", paper)


def recipe_link() -> str:
    return "[recipe](recipe.yaml)"


def idea(comment: str, method: str) -> Iterator[str]:
    """The recipe's comment: its first sentences, then the rest."""
    prose = parts_of_comment(comment)[""].removeprefix(f"{method}: ")
    sentences = SENTENCE_END.split(prose)
    yield capitalised(" ".join(sentences[:IDEA_SENTENCES]))
    if sentences[IDEA_SENTENCES:]:
        yield " ".join(sentences[IDEA_SENTENCES:])


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def formula(config: RunConfig, plugins: Sequence[PluginFacts]) -> Iterator[str]:
    yield code(loss_lines(config))
    for plugin in plugins:
        lines = parts_of(plugin.doc).get("Formula")
        if lines:
            yield f"`{plugin.use}`:"
            yield code(lines)
    yield f"The letters are those of [the index]({UP}/docs/methods/README.md#letters)."


def code(lines: Sequence[str]) -> str:
    return "\n".join(["```text", *lines, "```"])


def options(one: MethodFacts) -> Iterator[str]:
    """What the recipe sets, then every plug-in with all of its settings."""
    if len(one.chain) > 1:
        yield "\n".join(["The chain:", "", *(f"- {words}" for words in one.chain)])
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
    yield from paragraphs(parts_of(plugin.doc)[""])
    where = "all layers" if plugin.layers is None else f"layer {', '.join(plugin.layers)}"
    signals = f" Signals that it needs: {', '.join(plugin.requires)}." if plugin.requires else ""
    hooks = ", ".join(plugin.hooks) or "none"
    yield f"[Source]({UP}/{source_file(plugin.use)}), works on {where}. Hooks: {hooks}.{signals}"
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


def reconstructed(one: MethodFacts) -> Iterator[str]:
    """What of it is ours since its source is silent, as recipe and plug-ins say."""
    own = parts_of_comment(one.comment).get("Reconstructed")
    items = [own] if own else []
    for plugin in one.plugins:
        items += [
            f"`{plugin.use}`: {text}"
            for text in paragraphs(parts_of(plugin.doc).get("Reconstructed", []))
        ]
    yield (
        "\n".join(f"- {item}" for item in items)
        if items
        else (
            "Nothing that we know of: formulas are those of the paper, or of the authors' code "
            "where an option says so."
        )
    )


def absent(one: MethodFacts) -> str:
    """What a reader of the paper would look for in vain, as the recipe's comment says it."""
    text = parts_of_comment(one.comment).get("Absent")
    if not text:
        return "The recipe does not say: no paragraph of its comment begins with `Absent:`."
    return capitalised(text)


def measured(name: str, config: RunConfig, curve: Curve | None) -> Iterator[str]:
    if curve is None:
        yield (
            "No curve has been recorded yet. "
            f"`python -m benchmarks.method_curves {name}` trains the recipe a few steps and keeps "
            "one."
        )
        return
    yield f"![Mean reward of first attempts by step]({UP}/docs/methods/{FIGURES}/{name}.svg)"
    before, after = curve.sampled_accuracy
    yield (
        f"Right among sampled first attempts, in the first {WINDOW} steps of training and in the "
        f"last {WINDOW}: {before:.0%} and {after:.0%}, give or take 5 points."
        f"{counted_in(config)} {curve.step_s:.1f} s a step."
    )
    first, last = curve.accuracy[0], curve.accuracy[-1]
    chain = ""
    if curve.final_accuracy != curve.accuracy:
        begin, end = curve.final_accuracy[0], curve.final_accuracy[-1]
        chain = f" After the last turn of its chain: {begin:.1%} and {end:.1%}."
    yield (
        f"Right among greedy first attempts at held-out problems, before and after: {first:.1%} "
        f"and {last:.1%}.{chain} {SWITCH}"
    )
    is_earlier = curve.digest != method_digest(config)
    earlier = " The recipe has changed since." if is_earlier else ""
    yield (
        f"One seed, {len(curve.reward)} steps of the embedded policy on {curve.cpu}, commit "
        f"{curve.commit}; over the recipe: `{' '.join(curve.settings)}`.{earlier} It shows that "
        "the recipe trains. It does not rank methods: too few steps, and one learning rate for "
        "all. Dashed: plain GRPO with the same settings."
    )


def counted_in(config: RunConfig) -> str:
    """What else than plain samples is among those whose rewards are shown."""
    if config.sampling.dynamic is not None:
        return " Groups that were all right or all wrong were sampled again and do not count."
    if any(entry.use == "guided_error_correction" for entry in config.plugins):
        return " Repaired attempts are among them, as they are after the repair."
    return ""


def index_page(methods: Sequence[MethodFacts], curves: Mapping[str, Curve]) -> str:
    import scripts.method_pages.formula as formulas

    letters = " ".join((formulas.__doc__ or "").partition("\n\n")[2].split())
    rows = [
        (
            f"[{method.name}](../../mgrpo/methods/{method.id}/README.md)",
            method.changes,
            paper_link(method.paper),
            ", ".join(f"`{plugin.use}`" for plugin in method.plugins) or "keys alone",
            *accuracy_words(curves.get(method.id)),
        )
        for method in methods
    ]
    head = ("Method", "Idea", "Source", "Plug-ins", "Sampled", "Greedy")
    return (
        "\n\n".join(
            [
                "# Methods",
                "Each method is a folder under `mgrpo/methods/`: a chain of layers, keys, "
                "plug-ins. Train one with `mgrpo train methods/NAME`, explain it with `mgrpo "
                "methods NAME`, see what it does to recorded completions with `mgrpo explain`. "
                "[What each costs](../benchmarks/method_overhead.md) is measured. A method of your "
                "own: [write a method](../guides/write_a_method.md).",
                table(head, rows),
                "The last two columns are of a run of a few steps with one seed, to show that the "
                "recipe trains; no ranking. Sampled: right first attempts in its first "
                f"{WINDOW} training steps and its last {WINDOW}, give or take 5 points. Greedy: "
                f"held-out first attempts before and after it. {SWITCH} A comparison under one "
                "budget is in [results](../results/methods.md).",
                "## Letters",
                letters,
                "These pages are written by `make methods-pages`, from recipes, docstrings and "
                "recorded runs.",
            ]
        )
        + "\n"
    )


def accuracy_words(curve: Curve | None) -> tuple[str, str]:
    """Sampled and greedy."""
    if curve is None:
        return "", ""
    before, after = curve.sampled_accuracy
    last = f", last turn {curve.final_accuracy[-1]:.1%}"
    is_chain = curve.final_accuracy != curve.accuracy
    greedy = f"{curve.accuracy[0]:.1%} → {curve.accuracy[-1]:.1%}{last if is_chain else ''}"
    return f"{before:.0%} → {after:.0%}", greedy


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(cell(text) for text in row)} |" for row in rows]
    return "\n".join(lines)


def cell(text: str) -> str:
    """On one line, with nothing that ends a cell."""
    return " ".join(text.replace("|", "\\|").split())
