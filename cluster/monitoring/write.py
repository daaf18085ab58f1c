"""Writes the files that are generated from code: Grafana's dashboards, the table of metrics.

    python -m cluster.monitoring.write

A test compares the files with what this makes.
"""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    GridPos,
    VariableRefresh,
    VariableSort,
)

from cluster.monitoring.boards import BOARDS
from cluster.monitoring.metrics_table import TABLE_FILE, metrics_table
from cluster.monitoring.panels import Board, Panel

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS_DIR = Path(__file__).parent / "dashboards"

PANEL_HEIGHT, PANEL_WIDTH = 8, 12  # of Grafana's grid, which is 24 wide
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNS = "label_values(ray_mgrpo_step, run)"


def dashboard_json(board: Board) -> str:
    """One dashboard, as Grafana imports it."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["mgrpo"])
        .editable()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("mgrpo")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["mgrpo"])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(
            dashboard.QueryVariable("run")
            .label("Run")
            .datasource(SOURCE)
            .query(RUNS)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
        )
    )
    for number, panel in enumerate(board.panels, start=1):
        built = built.with_panel(time_series(panel, number))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def time_series(panel: Panel, number: int) -> timeseries.Panel:
    """One chart in its place: two side by side, from the top."""
    row, column = divmod(number - 1, 24 // PANEL_WIDTH)
    position = GridPos(h=PANEL_HEIGHT, w=PANEL_WIDTH, x=column * PANEL_WIDTH, y=row * PANEL_HEIGHT)
    chart = (
        timeseries.Panel()
        .id(number)
        .title(panel.title)
        .description(panel.help)
        .datasource(SOURCE)
        .unit(panel.unit)
        .grid_pos(position)
        .line_width(2)
        .show_points(VisibilityMode.AUTO)
        .span_nulls(True)
        .no_value(f"no data unless {panel.only_when}" if panel.only_when else "no data")
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if panel.is_logarithmic:
        scale = common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10)
        chart = chart.scale_distribution(scale)
    for place, query in enumerate(panel.queries):
        chart = chart.with_target(
            prometheus.Dataquery()
            .datasource(SOURCE)
            .expr(query.expression)
            .legend_format(query.legend)
            .range()
            .ref_id(chr(ord("A") + place))
        )
    return chart


def files() -> dict[Path, str]:
    """Every file that is made here, with its content."""
    boards = {DASHBOARDS_DIR / f"{board.uid}.json": dashboard_json(board) for board in BOARDS}
    return {**boards, ROOT / TABLE_FILE: metrics_table()}


def main() -> None:
    for path, content in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
