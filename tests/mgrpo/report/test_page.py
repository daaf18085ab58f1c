import base64
import dataclasses
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser

import pytest

from mgrpo.errors import RunDirectoryError
from mgrpo.metrics.log import MetricsLog
from mgrpo.report import write_report
from mgrpo.report.page import changed_keys, memory, throughput
from mgrpo.report.run_data import load_run
from mgrpo.types import Reward
from tests.mgrpo.metrics.test_log import a_completion
from tests.mgrpo.report.fake_run import make_run

HOSTILE = "</script><script>alert('owned')</script><img src=x onerror=alert(1)>"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Outline(HTMLParser):
    """Collects elements, and checks that each is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def read_page(run_dir) -> tuple[str, Outline]:
    html = write_report(run_dir).read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(html)
    assert outline.open == []  # every element was closed
    return html.replace("\u00a0", " "), outline


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return read_page(make_run(tmp_path_factory.mktemp("runs") / "sums", steps=40))


def test_a_finished_run_shows_its_outcome_curves_and_completions(finished):
    html, _ = finished
    assert "rose from 42 % to 71 %; a second look adds 3 points." in html
    assert "MGRPO" in html and "smollm2" in html
    for title in ("Accuracy by step", "What corrections change", "Mean reward", "Reward checks"):
        assert f"<figcaption>{title}</figcaption>" in html
    assert 'id="completions-data"' in html
    assert "has not finished" not in html


def test_the_page_fetches_nothing(finished):
    html, outline = finished
    for tag, attributes in outline.elements:
        assert tag not in {"link", "img", "iframe", "object", "base"}
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "@import" not in html and "url(" not in html


def test_the_security_policy_names_exactly_the_pages_own_style_and_script(finished):
    html, outline = finished
    (policy,) = (a["content"] for _, a in outline.elements if "http-equiv" in a)
    for tag, source in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{source} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert all("style" not in a and "onclick" not in a for _, a in outline.elements)


def test_every_chart_has_a_name_keyboard_access_and_its_values_as_a_table(finished):
    html, outline = finished
    plots = [a for _, a in outline.elements if a.get("class") == "plot"]
    assert len(plots) > 10
    assert all(a["role"] == "img" and a["tabindex"] == "0" and a["aria-label"] for a in plots)
    figures = re.findall("<figure.*?</figure>", html, flags=re.DOTALL)
    assert len(figures) == len(plots)
    for figure in figures:
        drawing = json.loads(unescape(re.search(r"data-chart='([^']*)'", figure)[1]))
        rows = re.findall(r'<tr><th scope="row">.*?</tr>', figure)
        assert len(rows) == len(drawing["steps"])
        for series in drawing["series"]:
            assert len(series["values"]) == len(rows)
        assert {row.count("<td>") for row in rows} == {len(drawing["series"])}


def test_the_page_carries_the_licence_of_the_library_that_it_holds(finished):
    html, _ = finished
    assert "Copyright (c) 2022 Leon Sorokin" in html and "uPlot" in html


def test_metrics_that_no_chart_knows_are_listed(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(0, {"mymethod/surprise": 0.5})
        log.write(1, {"mymethod/surprise": 0.25, "layer1/accuracy": 0.5})
    html, _ = read_page(tmp_path)
    assert "<code>mymethod/surprise</code>" in html
    assert "<code>layer1/accuracy</code>" not in html  # it has a chart


def test_hostile_text_stays_text_wherever_it_stands(tmp_path):
    reward = Reward(value=0.0, extracted_answer=HOSTILE, detail=HOSTILE, parts={HOSTILE: 1.0})
    completion = a_completion(
        text=HOSTILE, prompt_text=HOSTILE, problem_id=HOSTILE, domain=HOSTILE, reward=reward
    )
    (tmp_path / "config.yaml").write_text(json.dumps({"name": HOSTILE, "method": HOSTILE}))
    (tmp_path / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    with MetricsLog(tmp_path) as log:
        log.write(0, {HOSTILE: 0.5})
        log.write_rollouts(0, [completion])
    html, outline = read_page(tmp_path)
    assert [a.get("type") for tag, a in outline.elements if tag == "script"] == [
        "application/json",
        None,
    ]
    assert not any(tag == "img" for tag, _ in outline.elements)
    data = json.loads(outline.texts["script"][0])
    assert data[0]["problems"][0]["nodes"][0]["text"] == HOSTILE
    assert "onerror=alert(1)>" not in html


def test_an_interrupted_run_says_how_far_it_came(tmp_path):
    html, _ = read_page(make_run(tmp_path / "run", steps=27, planned_steps=60))
    assert "This run has not finished: 27 of 60 steps are done." in html
    assert "by step 20" in html
    assert '<th scope="col">Step 20</th>' in html


def test_a_run_without_steps_has_a_page(tmp_path):
    html, outline = read_page(make_run(tmp_path / "run", steps=0, planned_steps=9, evaluate=False))
    assert "No step has been taken yet." in html
    assert not any(tag == "figure" for tag, _ in outline.elements)
    assert "Configuration" in html


@pytest.mark.parametrize(
    ("accuracies", "course"),
    [
        ([0.25, 0.5, 0.75], "rose from 25 % to 75 %"),
        ([0.5, 0.4], "fell from 50 % to 40 %"),
        ([0.5, 0.501], "stayed at 50 %"),
    ],
)
def test_a_run_without_heldout_problems_is_told_by_its_training(tmp_path, accuracies, course):
    with MetricsLog(tmp_path) as log:
        for step, accuracy in enumerate(accuracies):
            log.write(step, {"layer1/accuracy": accuracy})
    html, _ = read_page(tmp_path)
    assert f"accuracy in training {course} (means" in html


def test_null_values_and_a_torn_line_do_not_stop_the_page(tmp_path):
    run_dir = make_run(tmp_path / "run", steps=3)
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "layer1/accuracy": null}\n{"step": 4, "lay')
    html, _ = read_page(run_dir)
    specs = re.findall(r"data-chart='([^']*)'", html)
    assert specs and not any(word in spec for spec in specs for word in ("NaN", "Infinity"))
    accuracies = next(json.loads(unescape(spec)) for spec in specs)["series"][0]["values"]
    assert accuracies[-1] is None and None not in accuracies[:-1]


def test_the_page_stays_small_and_says_what_it_leaves_out(tmp_path):
    run_dir = make_run(tmp_path / "run", steps=12, rollouts_every=1)
    path = write_report(run_dir, max_steps_bytes=120_000)
    assert path == run_dir / "report.html"
    assert path.stat().st_size < 320_000
    html = path.read_text(encoding="utf-8").replace("\n", " ")
    assert re.search(r"The other \d+ of 12 recorded steps are left out", html)


def test_a_directory_that_is_no_run_is_refused_with_advice(tmp_path):
    with pytest.raises(RunDirectoryError, match="is not a directory"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(RunDirectoryError, match="not a run's directory"):
        write_report(tmp_path)


def test_what_differs_from_the_defaults_throughput_and_memory_are_shown(tmp_path):
    run = load_run(make_run(tmp_path / "run", steps=3))
    text = changed_keys(run)
    assert "path: smollm2" in text and "learning_rate" not in text
    rows = [{"tokens/per_s": 150.0}, {"memory/run_gib": 2.25}, {}]
    assert (throughput(rows), memory(rows, "memory/run_gib")) == ("150 tokens/s", "2.2 GiB")
    assert (throughput([{}]), memory([{}], "memory/run_gib")) == ("", "")
    page = (write_report(run.run_dir)).read_text()
    assert "What differs from the defaults" in page and "tokens/s" in page
    assert changed_keys(dataclasses.replace(run, config={"of": "another version"})) == ""
