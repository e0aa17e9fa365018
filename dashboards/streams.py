"""The dashboard of what feeds the daemon: event streams, the queue, the event loop, the store."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from dashboards.panels import BAD, NODES, OK, YES_NO, Look, Panels, Query, filled, frame, graph, heat_map, timeline

_READY = {"0": ("not listening", BAD), "1": ("listening", OK)}


def streams() -> Dashboard:
    """Event streams and queue."""
    found = frame(
        "reconciler-streams",
        "Reconciler: event streams and queue",
        "Whether the daemons hear of changes, and whether they keep up with them.",
    )
    return filled(found, {"Event streams": _streams(), "Queue": _queue(), "Loop and store": _daemon()})


def _streams() -> Panels:
    last = f"reconciler_stream_last_event_timestamp_seconds{{{NODES}}} > 0"
    lost, ended = (
        f"sum by ({label}) (increase(reconciler_{name}_total{{{NODES}}}[$__rate_interval]))"
        for label, name in (("instance, stream", "stream_lost"), ("instance, controller", "watch_ended"))
    )
    return (
        timeline(
            "Listening",
            "Without its stream, drift waits for the resync to find it. All switches of a node are one stream: "
            "`reconcile status -v` names the one.",
            Query(f"reconciler_stream_ready{{{NODES}}}", "{{instance}} {{stream}}"),
            _READY,
        ),
        graph(
            "Silence",
            "Since the stream last said something. A silent one is probed every few seconds, "
            "so more than 10 s is a stream that is dead or being made anew, or a wrong clock.",
            Query(f"time() - ({last})", "{{instance}} {{stream}}"),
            look=Look("s", bad_from=60),
        ),
        graph(
            "Broken off",
            "Streams that were lost: Open vSwitch restarted, a bridge was deleted. "
            "Everything they covered is read anew.",
            Query(lost, "{{instance}} {{stream}}"),
        ),
        graph(
            "Watches started again",
            "Watches that ended with an error: look into the daemon's log.",
            Query(ended, "{{instance}} {{controller}}"),
        ),
    )


def _queue() -> Panels:
    passes = f"sum by (instance, controller) (rate(reconciler_passes_total{{{NODES}}}[$__rate_interval]))"
    return (
        graph(
            "Scopes that wait for a pass",
            "Above zero only in a storm.",
            Query(f"reconciler_queue_depth{{{NODES}}}", "{{instance}}"),
        ),
        graph(
            "Wait of the oldest",
            "How long the oldest scope has waited for a worker. When it grows, "
            "the workers are stuck: after 30 s /healthz and the watchdog say so.",
            Query(f"reconciler_queue_oldest_seconds{{{NODES}}}", "{{instance}}"),
            look=Look("s", bad_from=30),
        ),
        graph(
            "Passes a second",
            "An idle node has none but for the resync.",
            Query(passes, "{{instance}} {{controller}}"),
            look=Look("ops"),
        ),
    )


def _daemon() -> Panels:
    buckets = f"reconciler_loop_lag_seconds_bucket{{{NODES}}}"

    def lag(quantile: float) -> Query:
        per = f"sum by (le, instance) (rate({buckets}[$__rate_interval]))"
        return Query(f"histogram_quantile({quantile}, {per})", f"p{quantile * 100:.0f} {{{{instance}}}}")

    dropped = f"increase(reconciler_store_dropped_total{{{NODES}}}[$__rate_interval])"
    return (
        graph(
            "Lag of the event loop",
            "How late the daemon's loop is: p99 under 10 ms when quiet, "
            "under 50 ms in a storm. More is a machine without CPU left.",
            lag(0.5),
            lag(0.99),
            look=Look("s", bad_from=0.05),
        ),
        heat_map(
            "Lag of the event loop, all of it",
            "Each measurement by how late it was.",
            f"sum by (le) (increase({buckets}[$__rate_interval]))",
        ),
        timeline(
            "Store answers",
            "Without it the node is held all the same; the journal waits in memory.",
            Query(f"reconciler_store_available{{{NODES}}}", "{{instance}}"),
            YES_NO,
        ),
        graph(
            "Rows of the journal that were dropped",
            "The store was away for so long that the memory set aside for it was full.",
            Query(dropped, "{{instance}}"),
        ),
    )
