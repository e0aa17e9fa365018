"""Every metric of the daemon, declared in one place, prefixed ``reconciler_``, not labelled by a resource's name.

The one exception are checks, of which there are few, each written for its alert (controllers/checks/DESIGN.md).

A `Metrics` owns its registry, so a process may have several (tests do). Label values that are known beforehand start
at zero: a rate over a counter that has not happened yet is then 0, not absent. The engine calls the methods (each a
dictionary look-up and an addition); the doors call `render`. Times are wall-clock seconds, durations are seconds.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import TypeVar

import prometheus_client as prometheus
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

from reconciler import __version__
from reconciler.contract import Outcome, PassRecord, ResourceStatus, Verb

__all__ = ["CONTENT_TYPE", "GATES", "RESULTS", "Metrics"]

GATES = ("in_sync", "dry_run", "paused", "refs", "backoff", "rate", "contention", "budget")
"""The gates in the order in which they are asked (design.md section 4)."""

RESULTS = ("done", "failed", "withheld", "planned")
"""What may become of an action: `ActionRecord.result`."""

_REPAIR = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_PASS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_LAG = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # its signature is not annotated; they double every series, and nobody graphs them

_Metric = TypeVar("_Metric", bound=prometheus.metrics.MetricWrapperBase)


class _Family(dict[tuple[str, ...], _Metric]):
    """The bound children of one labelled metric, by label values; a new one is made when it is first asked for."""

    def __init__(self, metric: _Metric) -> None:
        super().__init__()
        self._metric: _Metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> _Metric:
        child = self[labels] = self._metric.labels(*labels)
        return child

    def forget(self, labels: tuple[str, ...]) -> None:
        """This series ends; it is made anew when it is asked for."""
        del self[labels]
        self._metric.remove(*labels)

    def zero(self, *values: Iterable[str]) -> None:
        """Make every combination of these label values exist."""
        for labels in product(*values):
            self[labels]


class Metrics:
    """The counters of one node. Also a `Sink`: `record` counts what a pass found."""

    def __init__(
        self, *, controllers: Iterable[str] = (), kinds: Iterable[str] = (), streams: Iterable[str] = ()
    ) -> None:
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        self._build_work()
        self._build_node()
        outcomes = tuple(Outcome)
        names, kind_names = tuple(controllers), tuple(kinds)
        self.passes.zero(names, outcomes)
        self.pass_seconds.zero(names)
        self.event_to_repair.zero(names)
        self.actions.zero(kind_names, tuple(Verb), RESULTS)
        self.drifts.zero(kind_names)
        self.resources.zero(kind_names, outcomes)
        self.oldest.zero(outcome for outcome in outcomes if outcome is not Outcome.CONVERGED)
        self.watch_ended.zero(names)
        self.withheld.zero(GATES)
        self.withheld_now.zero(GATES)
        for name in streams:
            self.stream(name, ready=False)

    def _build_work(self) -> None:
        self.passes = _Family(self._counter("passes", "Passes, by what they left behind.", "controller", "outcome"))
        self.pass_seconds = _Family(self._histogram("pass_seconds", "Duration of a pass.", _PASS, "controller"))
        self.actions = _Family(self._counter("actions", "Actions, by result.", "kind", "verb", "result"))
        self.withheld = _Family(self._counter("withheld", "Actions a gate withheld, each time it did.", "gate"))
        self.withheld_now = _Family(self._gauge("withheld_actions", "Actions that a gate withholds now.", "gate"))
        self.drifts = _Family(self._counter("drift", "Resources found other than declared, unasked.", "kind"))
        self.resources = _Family(self._gauge("resources", "Declared resources, by outcome.", "kind", "outcome"))
        oldest = "Since when the oldest resource with this outcome has it; 0 when there is none."
        self.oldest = _Family(self._gauge("oldest_unconverged_timestamp_seconds", oldest, "outcome"))
        self.queue_depth = self._gauge("queue_depth", "Scopes that wait for a pass.")
        self.queue_oldest = self._gauge("queue_oldest_seconds", "How long the oldest waiting scope has waited.")
        help_repair = "From the first event to the verified repair."
        self.event_to_repair = _Family(
            self._histogram("event_to_repair_seconds", help_repair, _REPAIR, "controller"),
        )
        composed = "From news of the model or of the YAML to the desired state that has it."
        self.compose_seconds = self._histogram("compose_seconds", composed, _REPAIR)
        age = "Age of a notification of OpenStack, by its sender's clock, when it is in the model."
        self.notification_age = self._histogram("notification_age_seconds", age, _REPAIR)
        self.loop_lag = self._histogram("loop_lag_seconds", "How late the event loop is.", _LAG)

    def _build_node(self) -> None:
        self.stream_ready = _Family(self._gauge("stream_ready", "1 while the stream listens.", "stream"))
        last = "When the stream last said something."
        self.stream_last = _Family(self._gauge("stream_last_event_timestamp_seconds", last, "stream"))
        self.stream_lost = _Family(self._counter("stream_lost", "How often the stream broke off.", "stream"))
        ended = "How often a controller's watch ended and was started again."
        self.watch_ended = _Family(self._counter("watch_ended", ended, "controller"))
        self.converged = self._gauge("converged", "1 while everything is as declared.")
        self.last_converged = self._gauge("last_converged_timestamp_seconds", "When everything last was as declared.")
        self.config_valid = self._gauge("config_valid", "1 while the desired state on disk has no mistake.")
        self.config_problems = self._gauge("config_problems", "Mistakes in the desired state on disk.")
        self.revision_info = self._gauge("revision_info", "The revision that is held, as a label.", "revision")
        self.store_available = self._gauge("store_available", "1 while the store answers.")
        self.store_dropped = self._counter("store_dropped", "Rows the store's queue had no room for.")
        self.paused = self._gauge("paused", "Pauses in force.")
        self.budget_waiting = self._gauge("budget_waiting", "Deletes that wait for an approval.")
        good = "1 while the check is good, 0 when it has failed often enough."
        self.check_ok = _Family(self._gauge("check_ok", good, "check"))
        value = "The number that the check found: percent of a disk, bytes, one value of a query, an exit code."
        self.check_value = _Family(self._gauge("check_value", value, "check"))
        self.check_seconds = _Family(self._gauge("check_seconds", "How long the last answer took.", "check"))
        self._gauge("build_info", "The version that runs, as a label.", "version").labels(__version__).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> prometheus.Counter:
        return prometheus.Counter(f"reconciler_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> prometheus.Gauge:
        return prometheus.Gauge(f"reconciler_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> prometheus.Histogram:
        return prometheus.Histogram(f"reconciler_{name}", text, labels, buckets=buckets, registry=self.registry)

    def pass_finished(self, controller: str, outcome: Outcome, seconds: float) -> None:
        """Every pass, also one that found nothing."""
        self.passes[controller, outcome].inc()
        self.pass_seconds[controller,].observe(seconds)

    def record(self, entry: PassRecord) -> None:
        """What a pass found: its actions by result, what gates withheld, and how long a repair took."""
        done = Tally((action.resource.kind, action.verb, action.result) for action in entry.actions)
        for labels, number in done.items():
            self.actions[labels].inc(number)
        for gate, number in Tally(action.gate for action in entry.actions if action.result == "withheld").items():
            self.withheld[gate,].inc(number)
        repaired = any(result == "done" for _, _, result in done)
        if repaired and entry.outcome is Outcome.CONVERGED:
            self.event_to_repair[entry.scope.controller,].observe(entry.since_event)

    def drift(self, kind: str, amount: int = 1) -> None:
        """`amount` resources differ from what was declared although nobody changed what is declared."""
        self.drifts[kind,].inc(amount)

    def set_resources(self, counts: Mapping[tuple[str, Outcome], int]) -> None:
        """How many resources of each kind have each outcome, now; what is not named is 0."""
        for labels in self.resources.keys() | counts.keys():
            kind, outcome = labels
            self.resources[kind, outcome].set(counts.get((kind, Outcome(outcome)), 0))

    def set_oldest(self, statuses: Iterable[ResourceStatus]) -> None:
        """Everything that is not right now; for each outcome the one that is so for longest counts."""
        oldest: dict[str, float] = {}
        for status in statuses:
            oldest[status.outcome] = min(status.since, oldest.get(status.outcome, status.since))
        for (outcome,), gauge in self.oldest.items():
            gauge.set(oldest.get(outcome, 0.0))

    def set_withheld(self, gates: Iterable[str]) -> None:
        """One gate name for each action that is withheld now."""
        tally = Tally(gates)
        for gate in {name for (name,) in self.withheld_now} | tally.keys():
            self.withheld_now[gate,].set(tally[gate])

    def set_queue(self, depth: int, oldest_seconds: float) -> None:
        self.queue_depth.set(depth)
        self.queue_oldest.set(oldest_seconds)

    def stream(self, name: str, *, ready: bool) -> None:
        """The stream listens, or does not (yet, or any more)."""
        self.stream_ready[name,].set(ready)
        self.stream_last[name,].inc(0)
        self.stream_lost[name,].inc(0)

    def stream_event(self, name: str, at: float) -> None:
        self.stream_last[name,].set(at)

    def stream_broke(self, name: str, times: int = 1) -> None:
        """The stream broke off, `times` since this was last called; whether it is ready again is for `stream`."""
        self.stream_lost[name,].inc(times)

    def keep_streams(self, names: Collection[str]) -> None:
        """Only these streams are there now: the others are neither ready nor silent. What they lost stays counted."""
        for family in (self.stream_ready, self.stream_last):
            for labels in [labels for labels in family if labels[0] not in names]:
                family.forget(labels)

    def set_converged(self, at: float | None) -> None:
        """Everything is as declared (`at` is now), or it is not (None)."""
        self.converged.set(at is not None)
        if at is not None:
            self.last_converged.set(at)

    def check(self, name: str, *, ok: bool | None, value: float | None, seconds: float) -> None:
        """What a check answered. `ok` None: it could not be asked, or is no longer declared; its series end."""
        found = ((self.check_ok, ok), (self.check_value, None if ok is None else value))
        for family, number in (*found, (self.check_seconds, None if ok is None else seconds)):
            if number is not None:
                family[name,].set(number)
            elif (name,) in family:
                family.forget((name,))

    def set_config(self, problems: int) -> None:
        self.config_valid.set(problems == 0)
        self.config_problems.set(problems)

    def set_revision(self, revision: str) -> None:
        self.revision_info.clear()
        self.revision_info.labels(revision).set(1)

    def observe_lag(self, seconds: float) -> None:
        self.loop_lag.observe(seconds)

    def render(self) -> bytes:
        """The text exposition format (`CONTENT_TYPE`)."""
        return prometheus.generate_latest(self.registry)
