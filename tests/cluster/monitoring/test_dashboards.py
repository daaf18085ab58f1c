from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from cluster.monitoring.boards import BOARDS
from cluster.monitoring.catalogue import FAMILIES
from cluster.monitoring.grafana import PROVISIONING
from cluster.monitoring.names import EXPORTED_PREFIX
from cluster.monitoring.page import write_page
from cluster.monitoring.panels import Metric, Panel, metrics_of
from cluster.monitoring.write import DASHBOARDS_DIR, ROOT, files

DEADLINE_S = 60
OWN_SERIES = {"ray_mgrpo_last_report_time_seconds"}
RAYS_SERIES = {
    "ray_node_cpu_utilization",
    "ray_node_mem_used",
    "ray_node_gpus_utilization",
    "ray_node_gram_used",
    "ray_actors",
}


def series_in(expression: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", expression))


def written(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DASHBOARDS_DIR / f"{name}.json").read_text("utf-8"))
    return found


def test_the_files_are_what_the_builder_writes():
    different = [
        str(path.relative_to(ROOT))
        for path, content in files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != content
    ]
    assert not different, f"python -m cluster.monitoring.write makes these anew: {different}"
    boards = {path.name for path in DASHBOARDS_DIR.iterdir()}
    assert boards == {f"{board.uid}.json" for board in BOARDS}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_grafanas_own_types_read_a_dashboard_and_lose_nothing(board):
    text = (DASHBOARDS_DIR / f"{board.uid}.json").read_text(encoding="utf-8")
    again = JSONEncoder(sort_keys=True, indent=2).encode(Dashboard.from_json(json.loads(text)))
    assert json.loads(again) == json.loads(text)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_can_be_imported_anywhere(board):
    made = written(board.uid)
    assert made["uid"] == board.uid and made["tags"] == ["mgrpo"]
    assert "id" not in made  # Grafana gives its own
    sources = {panel["datasource"]["uid"] for panel in made["panels"]}
    assert sources == {"${datasource}"}  # chosen at the top, whatever it is called
    assert [one["name"] for one in made["templating"]["list"]] == ["datasource", "run"]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_panels_have_places_of_their_own(board):
    panels = written(board.uid)["panels"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in board.panels]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert {panel["gridPos"]["x"] for panel in panels} <= {0, 12}


def test_every_series_of_a_panel_exists():
    known = {family.exported_name for family in FAMILIES} | OWN_SERIES | RAYS_SERIES
    known |= {f"ray_{f.counter_name}" for f in FAMILIES if f.is_counted}
    used = {series for text in metrics_of(BOARDS) for series in series_in(text)}
    assert used - known == set()
    assert len(used) > 35


def test_every_query_is_one_of_the_chosen_runs_or_of_the_machines():
    for expression in metrics_of(BOARDS):
        ours = [name for name in series_in(expression) if "mgrpo" in name]
        assert expression.count('run=~"$run"') == len(ours), expression


def test_a_metric_that_is_not_in_the_catalogue_cannot_be_drawn():
    with pytest.raises(AssertionError, match="the catalogue has no layer1/happiness"):
        Metric("layer1/happiness")


def test_a_metrics_query_and_its_counter():
    assert Metric("seconds/step").series == 'ray_mgrpo_seconds{run=~"$run",phase="step"}'
    expected = 'ray_mgrpo_tokens_generated_total{run=~"$run"}'
    assert Metric("tokens/generated").counter == expected


def test_a_panel_says_when_it_is_empty():
    panel = Panel("GPU", "Utilisation.", "percent", (), only_when="the cluster has GPUs")
    assert panel.help == "Utilisation. Empty unless the cluster has GPUs."
    assert Panel("CPU", "Utilisation.", "percent", ()).help == "Utilisation."


def test_the_queries_are_promql(tmp_path):
    """As recording rules, which promtool parses; a query's "$run" is text to it."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (it comes with Prometheus)")
    rules = [
        {"record": f"panel{number}", "expr": expression}
        for number, expression in enumerate(sorted(metrics_of(BOARDS)))
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_the_provisioning_names_what_grafana_is_told():
    sources = yaml.safe_load((PROVISIONING / "datasources" / "mgrpo.yml").read_text("utf-8"))
    assert sources["datasources"][0]["url"] == "$MGRPO_PROMETHEUS_URL"
    boards = yaml.safe_load((PROVISIONING / "dashboards" / "mgrpo.yml").read_text("utf-8"))
    paths = {one["name"]: one["options"]["path"] for one in boards["providers"]}
    assert paths == {"mgrpo": "$MGRPO_DASHBOARDS", "ray": "$RAY_DASHBOARDS"}
    assert EXPORTED_PREFIX == "ray_"


def test_the_page_holds_every_panel_and_no_open_tag(tmp_path):
    write_page(tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    data = re.search(r'id="boards">(.*?)</script>', page, re.DOTALL)
    assert data is not None and "<" not in data[1]
    boards = json.loads(data[1])
    assert [len(board["panels"]) for board in boards] == [len(board.panels) for board in BOARDS]
    assert (tmp_path / "panels.js").read_text(encoding="utf-8").startswith("// Draws")


def test_the_policy_of_the_page_allows_nothing_but_files_beside_it(tmp_path):
    write_page(tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    assert policy is not None and policy.start() < page.index("<link")
    assert policy[1].startswith("default-src 'none'; ") and "unsafe" not in policy[1]
    assert not re.search(r"<style|style=|\son\w+=|<script>", page)
    for name in re.findall(r'(?:src|href)="([^".#]+\.\w+(?:\.\w+)?)"', page):
        assert (tmp_path / name).is_file()
