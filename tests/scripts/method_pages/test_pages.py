"""The methods' pages: lists are up to date, explanations are there, links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mgrpo.config.load import load_recipe
from mgrpo.methods.catalog import leading_comment, method_facts, method_files
from mgrpo.methods.docstrings import entries, paragraphs, parts_of
from scripts.method_pages.curves import Curve, method_digest, read_curves, with_run, write_curves
from scripts.method_pages.figure import curve_figure
from scripts.method_pages.pages import (
    GENERATED,
    cell,
    filled,
    measured,
    paper_link,
    write_pages,
)
from tests.repository import REPOSITORY

CURVES = Path("docs/methods/curves.json")
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
FEWEST_WORDS = {  # written by hand
    "Idea": 60,
    "Formula": 30,
    "In this code": 30,
    "What is reconstructed": 3,
    "What of the paper is not here": 10,
}
LISTS = {"Options": "options", "Metrics it adds": "metrics", "Measured": "measured"}
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


def page_of(name: str) -> Path:
    return REPOSITORY / "mgrpo" / "methods" / name / "README.md"


def sections(name: str) -> dict[str, str]:
    """Text by title; "" is what stands before the first."""
    first, *rest = SECTION.split(page_of(name).read_text(encoding="utf-8"))
    return {"": first, **dict(zip(rest[::2], rest[1::2], strict=True))}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's pages, with their generated parts written anew."""
    folder = tmp_path_factory.mktemp("pages")
    for name in files_of(REPOSITORY):
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        emptied = GENERATED.sub(r"\1\3", text) if copy.suffix == ".md" else "old"
        copy.write_text(emptied, encoding="utf-8")
    (folder / CURVES).write_bytes((REPOSITORY / CURVES).read_bytes())
    write_pages(folder)
    return folder


def files_of(folder: Path) -> dict[str, str]:
    pages = [*folder.glob("mgrpo/methods/*/README.md"), *folder.glob("docs/methods/*.md")]
    paths = [*pages, *folder.glob("docs/methods/curves/*.svg")]
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in paths}


def test_generated_parts_are_what_the_command_writes(written: Path) -> None:
    found, committed = files_of(written), files_of(REPOSITORY)
    assert sorted(found) == sorted(committed), "remove what is left of a method"
    for name, text in found.items():
        assert text == committed[name], f"{name} is not up to date: make methods-pages"


@pytest.mark.parametrize("name", method_files())
def test_a_page_has_every_section_and_those_written_by_hand_say_something(name: str) -> None:
    found = sections(name)
    assert list(found)[1:] == [*FEWEST_WORDS, *LISTS]
    assert found[""].startswith(f"# {load_recipe(f'methods/{name}').method}\n")
    for title, fewest in FEWEST_WORDS.items():
        assert not GENERATED.search(found[title]), title
        assert len(found[title].split()) >= fewest, f"{title} of {name}"
    for title, part in LISTS.items():
        assert [marks[2] for marks in GENERATED.finditer(found[title])] == [part]
    assert "|  |" not in found["Options"], "a key without a docstring"


@pytest.mark.parametrize("name", method_files())
def test_a_page_links_its_paper_and_recipe_and_shows_a_formula(name: str) -> None:
    found = sections(name)
    assert paper_link(load_recipe(f"methods/{name}").paper) in found[""]
    assert "](recipe.yaml)" in found[""]
    assert f"`mgrpo train methods/{name}`" in found[""]
    assert "```text\n" in found["Formula"]


@pytest.mark.parametrize("name", method_files())
def test_a_page_repeats_that_a_plug_in_is_reconstructed(name: str) -> None:
    plugins = method_facts(method_files()[name], name).plugins
    if any("Reconstructed" in parts_of(plugin.doc) for plugin in plugins):
        assert not sections(name)["What is reconstructed"].strip().startswith("Nothing")


def test_no_two_pages_say_the_same_of_their_papers() -> None:
    said = [sections(name)["What of the paper is not here"] for name in method_files()]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("name", method_files())
def test_a_recipe_opens_with_its_methods_idea_in_a_sentence(name: str) -> None:
    comment = leading_comment(method_files()[name].read_text(encoding="utf-8"))
    assert 1 <= len(comment.splitlines()) <= 2


def test_only_generated_parts_of_a_page_are_written(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("# A\n\n<!-- generated: b -->\nold\n<!-- end -->\n\nOwn \\1.\n")
    text = "# A\n\n<!-- generated: b -->\n\nnew \\2\n\n<!-- end -->\n\nOwn \\1.\n"
    assert filled(page, {"b": "new \\2"}) == text
    with pytest.raises(ValueError, match=r"README.md: marks the parts \['b'\]"):
        filled(page, {"b": "new", "c": "new"})


def test_links_lead_somewhere() -> None:
    for path in map(REPOSITORY.joinpath, files_of(REPOSITORY)):
        if path.suffix != ".md":
            continue
        for target in LINK.findall(path.read_text(encoding="utf-8")):
            if not target.startswith("https://"):
                assert (path.parent / target).exists(), f"{path}: {target}"


def test_a_recipe_without_a_curve_says_so_and_how_to_record_one() -> None:
    (text,) = measured("lead", load_recipe("methods/lead"), [])
    assert "No curve has been recorded yet" in text
    assert "`python -m benchmarks.method_curves lead`" in text


def curve(**changes: object) -> Curve:
    values = {
        "seed": 0,
        "settings": ["steps=3"],
        "digest": "0",
        "reward": [0.25, None, 0.5],
        "grad_norm": [1.0, None, 1.0],
        "accuracy": [0.25, 0.75],
        "final_accuracy": [0.25, 0.75],
        "step_s": 1.5,
        "seconds": 60.0,
    }
    return Curve(**{**values, **changes})


def test_a_curve_is_told_with_its_numbers() -> None:
    config = load_recipe("methods/lead")
    shown = curve(final_accuracy=[0.3, 0.8], digest=method_digest(config))
    figure, numbers, conditions = measured("lead", config, [shown])
    assert "curves/lead.svg" in figure and "3 steps with one seed on" in conditions
    assert "Sampled first attempts: 25% → 50% right." in numbers
    assert "problems: 25.0% → 75.0%; after the last turn of its chain 30.0% → 80.0%." in numbers
    assert "changed since" not in conditions


def test_sampled_accuracy_is_that_of_both_ends_of_the_training() -> None:
    long = curve(reward=[0.1, 0.2, None, 0.3, 0.9, 0.9, 0.6, 0.7, 0.8, None])
    assert long.sampled_accuracy == pytest.approx((0.2, 0.7))
    assert curve(reward=[0.1, 0.2, None, 0.6]).sampled_accuracy == pytest.approx((0.1, 0.6))
    assert curve(reward=[0.4]).sampled_accuracy == pytest.approx((0.4, 0.4))


def test_what_a_recorded_curve_does_not_hold_for_is_said() -> None:
    *_, run = measured("lead", load_recipe("methods/lead"), [curve()])
    assert "The recipe has changed since." in run
    _, numbers, _ = measured("dapo", load_recipe("methods/dapo"), [curve()])
    assert "sampled again and do not count" in numbers
    _, numbers, _ = measured("edge_grpo", load_recipe("methods/edge_grpo"), [curve()])
    assert "Repaired attempts are among them" in numbers


def test_a_figure_is_xml_and_a_step_without_reward_interrupts_its_line() -> None:
    svg = curve_figure("A & B", [curve(reward=[0.25, 0.5, None, 0.5])], [curve(reward=[0.5, 0.5])])
    root = ElementTree.fromstring(svg)
    lines = [
        one.get("d", "")
        for one in root.iter("{http://www.w3.org/2000/svg}path")
        if "clip-path" in one.attrib and "var(--c" in one.get("style", "")
    ]
    assert [(line.count("M"), line.count("L")) for line in lines] == [(2, 1), (1, 1)]
    assert len(list(root.iter("{http://www.w3.org/2000/svg}use"))) >= 1  # the last reward's dot
    assert root.get("aria-label") == "A & B: mean reward of first attempts over 4 steps"


def test_a_figure_has_colours_for_both_kinds_of_pages_and_is_the_same_every_time() -> None:
    svg = curve_figure("A", [curve()], [])
    light, dark = (set(re.findall(r"--(\w+): #", part)) for part in svg.split("@media"))
    assert light == dark and "c0" in light
    assert "#" not in svg.split("</style>")[1].replace('xlink:href="#', "").replace("url(#", "")
    assert svg == curve_figure("A", [curve()], [])


def test_curves_are_kept_a_run_a_line(tmp_path: Path) -> None:
    file = tmp_path / "curves.json"
    assert read_curves(file) == {}
    written = {"b": [curve()], "a": [curve(digest="1"), curve(digest="1", seed=2)]}
    write_curves(file, written)
    heads = [line[:4] for line in file.read_text().splitlines()[1:-1]]
    assert heads == ['"a":', '{"se', '{"se', "],", '"b":', '{"se', "]"]
    assert read_curves(file) == written


def test_a_run_takes_the_place_of_its_seed_and_of_an_earlier_form_of_the_recipe() -> None:
    known = {"a": [curve(seed=2), curve(seed=0, step_s=9.0)], "b": [curve()]}
    more = with_run(known, "a", curve(seed=0))
    assert more == {"a": [curve(seed=0), curve(seed=2)], "b": [curve()]}
    assert with_run(more, "a", curve(seed=1, digest="new"))["a"] == [curve(seed=1, digest="new")]


def test_several_seeds_are_a_mean_in_a_band() -> None:
    runs = [
        curve(reward=[0.2, 0.4]),
        curve(seed=1, reward=[0.4, 0.8], accuracy=[0.35, 0.85], commit="x"),
    ]
    _, numbers, conditions = measured("lead", load_recipe("methods/lead"), runs)
    assert "Sampled first attempts: 30% → 60% (40% to 80%) right." in numbers
    assert "problems: 30.0% → 80.0% (75.0% to 85.0%)" in numbers
    assert "2 steps with 2 seeds on unknown, commit unknown, x;" in conditions
    svg = curve_figure("A", runs, [])
    assert svg.count("PolyCollection") == 1
    assert "PolyCollection" not in curve_figure("A", runs[:1], [])


def test_a_digest_changes_with_the_method_and_not_with_its_training() -> None:
    plain = method_digest(load_recipe("methods/gspo"))
    assert method_digest(load_recipe("methods/gspo", ["steps=3", "seed=4"])) == plain
    assert method_digest(load_recipe("methods/gspo", ["objective.loss.clip_low=0.1"])) != plain


def test_papers_become_links_and_bars_no_cells() -> None:
    assert paper_link("arXiv 2402.03300") == "[arXiv 2402.03300](https://arxiv.org/abs/2402.03300)"
    assert paper_link("") == "no paper of its own"
    assert cell("P(g|p)\n  here") == "P(g\\|p) here"


def test_a_docstring_has_prose_and_sections() -> None:
    formula, metrics = "Formula:\n    a = b\n      + c", "Metrics:\n    x/y: says\n        more."
    doc = f"One.\nTwo.\n\n{formula}\n\n{metrics}\n\nEnd."
    parts = parts_of(doc)
    assert paragraphs(parts[""]) == ["One. Two.", "End."]
    assert parts["Formula"] == ["a = b", "  + c"]
    assert entries(parts["Metrics"]) == {"x/y": "says more."}
