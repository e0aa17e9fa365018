"""The dashboard of drift and repair: what is changed behind the daemon's back, and how fast it is put right."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import (
    NODES,
    OUTCOME_COLOURS,
    SECONDS,
    STACKED,
    Look,
    Panels,
    Query,
    bars,
    filled,
    frame,
    graph,
    heat_map,
)

_BUCKETS = f"reconciler_event_to_repair_seconds_bucket{{{NODES}}}"
_PASSES = f"reconciler_pass_seconds_bucket{{{NODES}}}"
_RESULT_COLOURS = {"done": "green", "failed": "red", "withheld": "orange", "planned": "blue"}


def repairs() -> Dashboard:
    """Drift and repair."""
    found = frame(
        "reconciler-repairs",
        "Reconciler: drift and repair",
        "What is changed behind the daemons' back, how fast it is put right, and what is not.",
    )
    return filled(found, {"Drift": _drift(), "Repair": _repaired(), "Not repaired": _not_repaired()})


def _drift() -> Panels:
    return (
        graph(
            "Drift found, by kind",
            "Resources that differ although nobody changed what is declared. "
            "A steady rate is somebody who works against the daemon: look for them.",
            Query(f"sum by (kind) (increase(reconciler_drift_total{{{NODES}}}[$__rate_interval]))", "{{kind}}"),
            look=STACKED,
        ),
        bars(
            "Drift in the chosen time, by kind and node",
            "Where it happens.",
            Query(
                f"sum by (instance, kind) (increase(reconciler_drift_total{{{NODES}}}[$__range])) > 0",
                "{{instance}} {{kind}}",
            ),
        ),
    )


def _repaired() -> Panels:
    def share(of: str, quantile: float) -> Query:
        per = f"sum by (le, controller) (rate({of}[$__rate_interval]))"
        return Query(f"histogram_quantile({quantile}, {per})", f"p{quantile * 100:.0f} {{{{controller}}}}")

    return (
        graph(
            "Event to verified repair",
            "From the first event to the verified repair; gaps are times without a repair. Milliseconds are usual.",
            share(_BUCKETS, 0.5),
            share(_BUCKETS, 0.99),
            look=SECONDS,
        ),
        heat_map(
            "Event to verified repair, all of them",
            "Each repair by how long it took: outliers are seen here, not in a quantile.",
            f"sum by (le) (increase({_BUCKETS}[$__rate_interval]))",
        ),
        graph(
            "Actions, by result",
            "done, failed (tried again with a growing delay), withheld by a gate.",
            Query(f"sum by (result) (increase(reconciler_actions_total{{{NODES}}}[$__rate_interval]))", "{{result}}"),
            look=Look(stacked=True, colours=_RESULT_COLOURS),
        ),
        graph(
            "Actions done, by kind and verb",
            "What was created, updated, deleted.",
            Query(
                "sum by (kind, verb) (increase(reconciler_actions_total"
                f'{{{NODES},result="done"}}[$__rate_interval])) > 0',
                "{{verb}} {{kind}}",
            ),
        ),
        graph(
            "Duration of a pass",
            "All passes, also those that found nothing.",
            share(_PASSES, 0.5),
            share(_PASSES, 0.99),
            look=SECONDS,
        ),
        graph(
            "Passes, by what they left behind",
            "One colour but green that lasts is a thing that is not repaired.",
            Query(f"sum by (outcome) (increase(reconciler_passes_total{{{NODES}}}[$__rate_interval]))", "{{outcome}}"),
            look=Look(stacked=True, colours=OUTCOME_COLOURS),
        ),
    )


def _not_repaired() -> Panels:
    oldest = f"reconciler_oldest_unconverged_timestamp_seconds{{{NODES}}}"
    age = f"max by (instance, outcome) (time() - ({oldest} > 0) or {oldest} * 0)"
    wrong = f'reconciler_resources{{{NODES},outcome!="converged"}}'
    return (
        graph(
            "Age of the oldest, by outcome",
            "How long something has had this outcome without a break. Above the line an alert is raised.",
            Query(age, "{{instance}} {{outcome}}"),
            look=Look("s", bad_from=1800),
        ),
        graph(
            "Not right, by node",
            "`reconcile status` on that node says which and why.",
            Query(f"sum by (instance) ({wrong})", "{{instance}}"),
        ),
        graph(
            "Withheld now, by gate",
            "Actions that a gate withholds: paused, refs (waits for something "
            "else), backoff (failed before), contention, budget (`reconcile approve`), in_sync.",
            Query(f"sum by (gate) (reconciler_withheld_actions{{{NODES}}})", "{{gate}}"),
            look=STACKED,
        ),
        graph(
            "Withheld, by gate",
            "Each time a gate withheld an action.",
            Query(f"sum by (gate) (increase(reconciler_withheld_total{{{NODES}}}[$__rate_interval]))", "{{gate}}"),
        ),
    )
