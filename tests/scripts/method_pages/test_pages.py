"""docs/methods: written by the command alone, complete, and with links that lead somewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mgrpo.config.load import load_recipe
from mgrpo.methods.catalog import leading_comment, method_facts, method_files
from mgrpo.methods.docstrings import entries, paragraphs, parts_of, parts_of_comment
from scripts.method_pages.curves import Curve, method_digest, read_curves, write_curves
from scripts.method_pages.figure import curve_figure
from scripts.method_pages.formula import loss_lines
from scripts.method_pages.pages import absent, cell, measured, paper_link, write_pages
from tests.repository import REPOSITORY

CURVES = Path("docs/methods/curves.json")
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
PARTS = (
    "Formula",
    "Options",
    "Metrics it adds",
    "What is reconstructed",
    "Differences from the paper",
    "Measured",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's pages, written anew."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "docs" / "methods").mkdir(parents=True)
    (folder / CURVES).write_bytes((REPOSITORY / CURVES).read_bytes())
    write_pages(folder)
    return folder


def files_of(folder: Path) -> dict[str, str]:
    pages = [*folder.glob("mgrpo/methods/*/README.md"), *folder.glob("docs/methods/*.md")]
    paths = [*pages, *folder.glob("docs/methods/curves/*.svg")]
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in paths}


def test_committed_pages_are_what_the_command_writes(written: Path) -> None:
    found, committed = files_of(written), files_of(REPOSITORY)
    assert sorted(found) == sorted(committed), "run: make methods-pages, and remove what is left"
    for name, text in found.items():
        assert text == committed[name], f"{name} is not up to date: make methods-pages"


def test_every_method_has_its_page_with_every_part(written: Path) -> None:
    for name in method_files():
        text = (written / "mgrpo" / "methods" / name / "README.md").read_text(encoding="utf-8")
        for part in PARTS:
            assert f"\n## {part}\n\n" in text, (name, part)
        assert "](recipe.yaml)" in text
        assert "L = " in text or "L_" in text


def what_is_absent(name: str) -> str:
    comment = leading_comment(method_files()[name].read_text(encoding="utf-8"))
    return parts_of_comment(comment).get("Absent", "")


@pytest.mark.parametrize("name", method_files())
def test_every_recipe_says_what_of_its_paper_is_not_here(name: str, written: Path) -> None:
    said = what_is_absent(name)
    assert len(said.split()) >= 10, f"mgrpo/methods/{name}/recipe.yaml: no paragraph `Absent: ...`"
    page = (written / "mgrpo" / "methods" / name / "README.md").read_text(encoding="utf-8")
    _, _, after = page.partition("\n## Differences from the paper\n\n")
    assert after.lower().startswith(said.lower())
    idea, _, _ = page.partition("\n## Formula")
    assert said not in idea


def test_no_two_recipes_say_the_same_of_their_papers() -> None:
    said = [what_is_absent(name) for name in method_files()]
    assert len(set(said)) == len(said)


def test_a_recipe_that_does_not_say_what_is_absent_is_said_not_to() -> None:
    one = replace(method_facts(method_files()["grpo"], "grpo"), comment="GRPO: groups.")
    assert "The recipe does not say" in absent(one)


def test_a_recipes_comment_has_sections_and_commands_belong_to_none() -> None:
    comment = "Idea: one.\n  mgrpo train x\nMore.\nReconstructed: a,\nb: c.\nAbsent: d."
    assert parts_of_comment(comment) == {
        "": "Idea: one. More.",
        "Reconstructed": "a, b: c.",
        "Absent": "d.",
    }


def test_links_lead_somewhere() -> None:
    for path in map(REPOSITORY.joinpath, files_of(REPOSITORY)):
        if path.suffix != ".md":
            continue
        for target in LINK.findall(path.read_text(encoding="utf-8")):
            if not target.startswith("https://"):
                assert (path.parent / target).exists(), f"{path}: {target}"


def test_a_recipe_without_a_curve_says_so_and_how_to_record_one() -> None:
    (text,) = measured("lead", load_recipe("methods/lead"), None)
    assert "No curve has been recorded yet" in text
    assert "`python -m benchmarks.method_curves lead`" in text


def curve(**changes: object) -> Curve:
    values = {
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
    figure, sampled, greedy, run = measured("lead", config, shown)
    assert "curves/lead.svg" in figure
    assert "last 3: 25% and 50%" in sampled
    assert "before and after: 25.0% and 75.0%" in greedy
    assert "After the last turn of its chain: 30.0% and 80.0%" in greedy
    assert "changed since" not in run


def test_sampled_accuracy_is_that_of_both_ends_of_the_training() -> None:
    long = curve(reward=[0.1, 0.2, None, 0.3, 0.9, 0.9, 0.6, 0.7, 0.8, None])
    assert long.sampled_accuracy == pytest.approx((0.2, 0.7))
    assert curve(reward=[0.1, 0.2, None, 0.6]).sampled_accuracy == pytest.approx((0.1, 0.6))
    assert curve(reward=[0.4]).sampled_accuracy == pytest.approx((0.4, 0.4))


def test_what_a_recorded_curve_does_not_hold_for_is_said() -> None:
    *_, run = measured("lead", load_recipe("methods/lead"), curve())
    assert "The recipe has changed since." in run
    _, sampled, *_ = measured("dapo", load_recipe("methods/dapo"), curve())
    assert "sampled again and do not count" in sampled
    _, sampled, *_ = measured("edge_grpo", load_recipe("methods/edge_grpo"), curve())
    assert "Repaired attempts are among them" in sampled


def test_a_figure_is_xml_and_a_step_without_reward_interrupts_its_line() -> None:
    svg = curve_figure("A & B", curve(reward=[0.25, 0.5, None, 0.5]), curve(reward=[0.5, 0.5]))
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
    svg = curve_figure("A", curve(), None)
    light, dark = (set(re.findall(r"--(\w+): #", part)) for part in svg.split("@media"))
    assert light == dark and "c0" in light
    assert "#" not in svg.split("</style>")[1].replace('xlink:href="#', "").replace("url(#", "")
    assert svg == curve_figure("A", curve(), None)


def test_curves_are_kept_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "curves.json"
    assert read_curves(file) == {}
    write_curves(file, {"b": curve(), "a": curve(digest="1")})
    assert [line[:4] for line in file.read_text().splitlines()[1:-1]] == ['"a":', '"b":']
    assert read_curves(file) == {"a": curve(digest="1"), "b": curve()}


def test_a_digest_changes_with_the_method_and_not_with_its_training() -> None:
    plain = method_digest(load_recipe("methods/gspo"))
    assert method_digest(load_recipe("methods/gspo", ["steps=3", "seed=4"])) == plain
    assert method_digest(load_recipe("methods/gspo", ["objective.loss.clip_low=0.1"])) != plain


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("grpo", "A_i = (r_i - mean r over the group) / (std r + 1e-06)"),
        ("dr_grpo", "A_i = r_i - mean r over the group"),
        ("dr_grpo", "mean over completions of the sum over their tokens / 64 of"),
        ("dapo", ", 0.8, 1.28) A)"),
        ("raft_plus_plus", "A_i: those of raft, below"),
        ("raft_plus_plus", "not below 3 A where A < 0"),
        ("rloo", "J_t: that of reinforce, below"),
        ("unlikeliness", "J_t + 0.1 k3(p, p_ref)"),
        ("tis", "of  -J_t"),
        ("mgrpo", "correct: A_i = (r_i - mean r over the corrections of one attempt)"),
        ("mgrpo", "L = L_solve + L_correct   (one update)"),
        ("score", "correct: A_i = r_i"),
        ("igrpo", "L_correct = mean over completions"),
    ],
)
def test_a_loss_is_put_together_from_the_recipes_keys(recipe: str, expected: str) -> None:
    assert any(expected in line for line in loss_lines(load_recipe(f"methods/{recipe}")))


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
