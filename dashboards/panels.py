"""What the dashboards share: the data source and the choice of nodes, panels by what they show, and the frame.

A panel says in its description how it is to be read. Queries are instant for what is said as one number or in a
table, and ranges for what is drawn. Used by the dashboards' modules only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
NODES = 'instance=~"$instance"'
"""What every query selects by: the nodes that were chosen at the top."""
OK, BAD = "green", "red"
OUTCOME_COLOURS: Mapping[str, str] = {
    "converged": "green", "pending": "blue", "contended": "purple", "conflict": "orange", "failed": "red",
}  # fmt: skip
YES_NO: Mapping[str, tuple[str, str]] = {"0": ("no", BAD), "1": ("yes", OK)}


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called (``{{label}}`` stands for a label's value)."""

    expr: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """How numbers are shown: Grafana's name of their unit, the value from which they are bad (a line in a graph).

    `colours` are by series name; `stacked` adds the series up.
    """

    unit: str = "short"
    bad_from: float | None = None
    stacked: bool = False
    colours: Mapping[str, str] = field(default_factory=dict)


Panels = Sequence[Builder[models.Panel]]
PLAIN = Look()
STACKED = Look(stacked=True)
SECONDS = Look(unit="s")
BAD_IF_ANY = Look(bad_from=1)


class _Panel(Protocol):
    """What the SDK's builders of panels have in common."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: models.DataSourceRef) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def with_target(self, target: Builder[Dataquery]) -> Self: ...


_P = TypeVar("_P", bound=_Panel)


def number(title: str, reads: str, expr: str, look: Look = PLAIN) -> stat.Panel:
    """One number as it is now."""
    panel = _frame(stat.Panel(), title, reads, width=4, height=4)
    _ask(panel, [Query(expr)], instant=True)
    panel.unit(look.unit).thresholds(_thresholds(look))
    coloured = looks.BigValueColorMode.NONE if look.bad_from is None else looks.BigValueColorMode.BACKGROUND
    panel.color_mode(coloured).graph_mode(looks.BigValueGraphMode.NONE)
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def text(title: str, reads: str, expr: str, label: str) -> stat.Panel:
    """What a label of the series says, such as a version: every value there is."""
    panel = _frame(stat.Panel(), title, reads, width=4, height=4)
    _ask(panel, [Query(expr, f"{{{{{label}}}}}")], instant=True)
    return panel.text_mode(looks.BigValueTextMode.NAME).graph_mode(looks.BigValueGraphMode.NONE)


def graph(title: str, reads: str, *queries: Query, look: Look = PLAIN) -> timeseries.Panel:
    """Lines over time."""
    panel = _frame(timeseries.Panel(), title, reads, width=12, height=8)
    _ask(panel, queries, instant=False)
    panel.unit(look.unit).min(0).tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI))
    legend = common.VizLegendOptions().show_legend(show_legend=True).placement(looks.LegendPlacement.BOTTOM)
    panel.legend(legend.display_mode(looks.LegendDisplayMode.LIST))
    if look.stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL)).fill_opacity(30)
    if look.bad_from is not None:
        style = common.GraphThresholdsStyleConfig().mode(looks.GraphTresholdsStyleMode.DASHED)
        panel.thresholds(_thresholds(look)).thresholds_style(style)
    for name, colour in look.colours.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=fixed)])
    return panel


def timeline(title: str, reads: str, query: Query, words: Mapping[str, tuple[str, str]]) -> statetimeline.Panel:
    """States over time, a row for each series; `words` are texts and colours for values."""
    panel = _frame(statetimeline.Panel(), title, reads, width=12, height=8)
    _ask(panel, [query], instant=False)
    panel.show_value(looks.VisibilityMode.NEVER).row_height(0.8)
    return panel.mappings(_words(words)).color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))


def bars(title: str, reads: str, query: Query, *, unit: str = "short") -> bargauge.Panel:
    """One bar for each series, as it is now."""
    panel = _frame(bargauge.Panel(), title, reads, width=12, height=8)
    _ask(panel, [query], instant=True)
    panel.unit(unit).min(0).orientation(looks.VizOrientation.HORIZONTAL)
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def heat_map(title: str, reads: str, expr: str) -> heatmap.Panel:
    """How a histogram's buckets (`expr`, by ``le``, in seconds) fill over time."""
    panel = _frame(heatmap.Panel(), title, reads, width=12, height=8)
    query = (
        prometheus.Dataquery().expr(expr).range().format(PromQueryFormat.HEATMAP).legend_format("{{le}}").ref_id("A")
    )
    panel.with_target(query.datasource(SOURCE)).calculate(calculate=False).show_tooltip()
    return (
        panel.y_axis(heatmap.YAxisConfig().unit("s"))
        .cell_gap(1)
        .rows_frame(heatmap.RowsHeatmapOptions().layout(looks.HeatmapCellLayout.LE))
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, what it shows, and how."""

    title: str
    expr: str
    unit: str = "short"
    words: Mapping[str, tuple[str, str]] | None = None


def table(title: str, reads: str, columns: Sequence[Column], *, hidden: Iterable[str] = ()) -> tables.Panel:
    """Rows by labels that the columns' series share; columns in order. `hidden` are titles and labels to leave out."""
    panel = _frame(tables.Panel(), title, reads, width=24, height=10).show_header(show_header=True)
    names: dict[str, str] = {}
    for column, ref in zip(columns, ascii_uppercase, strict=False):
        query = prometheus.Dataquery().expr(column.expr).instant().format(PromQueryFormat.TABLE).ref_id(ref)
        panel.with_target(query.datasource(SOURCE))
        names["Value" if len(columns) == 1 else f"Value #{ref}"] = column.title
        values = [models.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.words:
            mapped = [mapping.to_json() for mapping in _words(column.words)]
            coloured = {"type": "color-text"}
            values.append(models.DynamicConfigValue(id_val="mappings", value=mapped))
            values.append(models.DynamicConfigValue(id_val="custom.cellOptions", value=coloured))
        panel.override_by_name(column.title, values)
    queried = {title: name for name, title in names.items()}
    left_out = dict.fromkeys(["Time", "__name__", "job", *(queried.get(name, name) for name in hidden)], True)
    organize = {"excludeByName": left_out, "renameByName": {"instance": "node", **names}, "indexByName": {}}
    if len(columns) > 1:
        panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    return panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=organize))


def frame(uid: str, title: str, reads: str) -> dashboard.Dashboard:
    """A dashboard without panels: its data source and nodes to choose, links to its siblings, marks for revisions."""
    source = dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    nodes = (
        dashboard.QueryVariable("instance").label("Node").datasource(SOURCE)
        .query("label_values(reconciler_build_info, instance)").refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC).multi(multi=True).include_all(include_all=True).all_value(".+")
    )  # fmt: skip
    held = f"reconciler_revision_info{{{NODES}}}"
    revisions = (
        dashboard.AnnotationQuery().name("Declared state changed").datasource(SOURCE).enable(enable=True)
        .icon_color("purple").expr(f"count by (revision) ({held} unless {held} offset 1m)")
    )  # fmt: skip
    siblings = dashboard.DashboardLink("Reconciler").type(models.DashboardLinkType.DASHBOARDS).tags(["reconciler"])
    return (
        dashboard.Dashboard(title).uid(uid).description(reads).tags(["reconciler"]).timezone("browser").editable()
        .time("now-3h", "now").refresh("30s").tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(source).with_variable(nodes).annotation(revisions)
        .link(siblings.keep_time(keep_time=True).include_vars(include_vars=True))
    )  # fmt: skip


def filled(found: dashboard.Dashboard, rows: Mapping[str, Panels]) -> dashboard.Dashboard:
    """`found` with a row of this title above each of these panels."""
    for title, panels in rows.items():
        found.with_row(dashboard.Row(title))
        for panel in panels:
            found.with_panel(panel)
    return found


def _frame(panel: _P, title: str, reads: str, *, width: int, height: int) -> _P:
    return panel.title(title).description(reads).datasource(SOURCE).span(width).height(height)


def _ask(panel: _Panel, queries: Iterable[Query], *, instant: bool) -> None:
    for query, ref in zip(queries, ascii_uppercase, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.name or "__auto").ref_id(ref)
        panel.with_target((target.instant() if instant else target.range()).datasource(SOURCE))


def _thresholds(look: Look) -> dashboard.ThresholdsConfig:
    bad = [] if look.bad_from is None else [models.Threshold(look.bad_from, BAD)]
    return dashboard.ThresholdsConfig().steps([models.Threshold(None, OK), *bad])


def _words(words: Mapping[str, tuple[str, str]]) -> list[models.ValueMapping]:
    results = {value: models.ValueMappingResult(text, colour) for value, (text, colour) in words.items()}
    return [models.ValueMap(results)]
