"""The dashboard to begin with: which nodes are not as declared, and what one node holds and costs."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import (
    BAD,
    BAD_IF_ANY,
    NODES,
    OK,
    OUTCOME_COLOURS,
    SECONDS,
    STACKED,
    YES_NO,
    Column,
    Look,
    Panels,
    Query,
    filled,
    frame,
    graph,
    number,
    table,
    text,
    timeline,
)

_WRONG = f'reconciler_resources{{{NODES},outcome!="converged"}}'
_OLDEST = f"time() - (reconciler_oldest_unconverged_timestamp_seconds{{{NODES}}} > 0)"
_UP = f'up{{job="reconciler",{NODES}}}'
_ANSWERS = {"0": ("down", BAD), "1": ("up", OK)}
_CONVERGED = {"0": ("not as declared", BAD), "1": ("as declared", OK)}

_GOOD = {"0": ("fails", BAD), "1": ("good", OK)}


def overview() -> Dashboard:
    """Node overview."""
    found = frame(
        "reconciler-overview", "Reconciler: nodes", "Which nodes are not as declared, since when, and what they hold."
    )
    return filled(found, {"All nodes": _fleet(), "What the chosen nodes hold and cost": _one_node()})


def _numbers() -> Panels:
    return (
        number(
            "Nodes not as declared",
            "Daemons that answer and whose node differs from what is declared.",
            f"count(reconciler_converged{{{NODES}}} == 0) or vector(0)",
            look=BAD_IF_ANY,
        ),
        number(
            "Daemons down",
            "Nodes that nobody holds: Prometheus gets no answer.",
            f"count({_UP} == 0) or vector(0)",
            look=BAD_IF_ANY,
        ),
        number(
            "Resources not right",
            "Declared resources with any outcome but converged, and scopes that are blind.",
            f"sum({_WRONG})",
            look=BAD_IF_ANY,
        ),
        number(
            "Oldest drift",
            "How long the oldest resource has not been right. Minutes are unusual, hours a fault.",
            f"max({_OLDEST}) or vector(0)",
            look=Look("s", bad_from=1800),
        ),
        number(
            "Deletes waiting",
            "Deletes beyond the budget: `reconcile plan` shows them, `reconcile approve` lets them go.",
            f"sum(reconciler_budget_waiting{{{NODES}}})",
            look=BAD_IF_ANY,
        ),
        number(
            "Pauses in force",
            "Somebody ordered a stop: `reconcile status` says who, why and until when.",
            f"sum(reconciler_paused{{{NODES}}})",
            look=BAD_IF_ANY,
        ),
    )


def _fleet() -> Panels:
    columns = (
        Column("daemon", f"sum by (instance) ({_UP})", words=_ANSWERS),
        Column("as declared", f"sum by (instance) (reconciler_converged{{{NODES}}})", words=YES_NO),
        Column("not right", f"sum by (instance) ({_WRONG})"),
        Column("oldest drift", f"max by (instance) ({_OLDEST}) or sum by (instance) ({_UP}) * 0", "s"),
        Column("YAML valid", f"sum by (instance) (reconciler_config_valid{{{NODES}}})", words=YES_NO),
        Column("deletes waiting", f"sum by (instance) (reconciler_budget_waiting{{{NODES}}})"),
        Column("pauses", f"sum by (instance) (reconciler_paused{{{NODES}}})"),
        Column("of revision", f"sum by (instance, revision) (reconciler_revision_info{{{NODES}}})"),
        Column("of version", f"sum by (instance, version) (reconciler_build_info{{{NODES}}})"),
    )
    reads = "One row for each node. The revision is the content of what is declared: equal YAML, equal revision."
    return (
        *_numbers(),
        table("Nodes", reads, columns, hidden=("of revision", "of version")),
        timeline(
            "As declared, over time",
            "Red is when a node differed from what is declared. A repair takes "
            "milliseconds: what is seen here needed more than one scrape.",
            Query(f"reconciler_converged{{{NODES}}}", "{{instance}}"),
            _CONVERGED,
        ),
        graph(
            "Not right, by outcome",
            "pending waits for something, contended is changed back by somebody, conflict "
            "is somebody else's, failed was refused.",
            Query(f"sum by (outcome) ({_WRONG})", "{{outcome}}"),
            look=Look(stacked=True, colours=OUTCOME_COLOURS),
        ),
        table(
            "Alerts",
            "Alerts of rules/alerting.yml, pending and firing; empty when there are none or no rules.",
            [Column("value", f'ALERTS{{alertname=~"Reconciler.+",{NODES}}}')],
            hidden=("value",),
        ),
    )


def _one_node() -> Panels:
    by_kind = f"sum by (kind) (reconciler_resources{{{NODES}}})"
    return (
        text("Revision", "The revision that is held.", f"reconciler_revision_info{{{NODES}}}", "revision"),
        text("Version", "The version of the daemon.", f"reconciler_build_info{{{NODES}}}", "version"),
        number(
            "Mistakes in the YAML",
            "The last good revision is held meanwhile; `reconcile validate`.",
            f"sum(reconciler_config_problems{{{NODES}}})",
            look=BAD_IF_ANY,
        ),
        number(
            "Stores away",
            "Without its store a node is held, and its journal waits in memory.",
            f"count(reconciler_store_available{{{NODES}}} == 0) or vector(0)",
            look=BAD_IF_ANY,
        ),
        number(
            "Since all was as declared",
            "The longest time of any chosen node since it last was.",
            f"max(time() - (reconciler_last_converged_timestamp_seconds{{{NODES}}} > 0)) or vector(0)",
            look=SECONDS,
        ),
        number(
            "Up since",
            "The youngest daemon of the chosen nodes.",
            f'min(time() - process_start_time_seconds{{job="reconciler",{NODES}}})',
            look=SECONDS,
        ),
        timeline(
            "Checks, over time",
            "Conditions that nobody repairs but a person: red while a check fails.",
            Query(f"reconciler_check_ok{{{NODES}}}", "{{instance}} {{check}}"),
            _GOOD,
        ),
        graph(
            "What checks find",
            "Percent of a disk, bytes of a directory, the value of a query: whatever the check measures.",
            Query(f"reconciler_check_value{{{NODES}}}", "{{instance}} {{check}}"),
        ),
        graph(
            "How long checks take",
            "Seconds until the answer of each check.",
            Query(f"reconciler_check_seconds{{{NODES}}}", "{{instance}} {{check}}"),
            look=Look("s"),
        ),
        graph("Resources by kind", "Declared resources.", Query(f"{by_kind} > 0", "{{kind}}"), look=STACKED),
        graph(
            "Memory",
            "Resident memory of the daemon.",
            Query(f'process_resident_memory_bytes{{job="reconciler",{NODES}}}', "{{instance}}"),
            look=Look("bytes"),
        ),
        graph(
            "CPU",
            "Share of one core. Idle, a daemon uses next to nothing.",
            Query(f'rate(process_cpu_seconds_total{{job="reconciler",{NODES}}}[$__rate_interval])', "{{instance}}"),
            look=Look("percentunit"),
        ),
        graph(
            "Open files",
            "A number that only grows is a leak: tell us, with `reconcile status -v`.",
            Query(f'process_open_fds{{job="reconciler",{NODES}}}', "{{instance}}"),
        ),
    )
