"""The metrics: there from the start at zero, never labelled by a resource, counting what a pass found."""

from prometheus_client.parser import text_string_to_metric_families

from desired.resource import ResourceId
from reconciler.contract import ActionRecord, Outcome, PassRecord, ResourceStatus, Scope, Verb
from reconciler.metrics import GATES, Metrics


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"reconciler_{name}", labels)


def action(result: str, gate: str = "") -> ActionRecord:
    return ActionRecord(ResourceId("port", "patch-tun"), Verb.CREATE, "was deleted", "", "patch", result, gate=gate)


def entry(outcome: Outcome, *actions: ActionRecord) -> PassRecord:
    return PassRecord(1, 1.0, Scope("ovsdb"), "event", "abc", outcome, 0.001, 0.003, actions)


def build() -> Metrics:
    return Metrics(controllers=("ovsdb",), kinds=("port",), streams=("ovsdb",))


def test_known_series_start_at_zero():
    metrics = build()
    assert sample(metrics, "passes_total", controller="ovsdb", outcome="failed") == 0
    assert sample(metrics, "actions_total", kind="port", verb="delete", result="done") == 0
    assert sample(metrics, "event_to_repair_seconds_count", controller="ovsdb") == 0
    assert sample(metrics, "stream_lost_total", stream="ovsdb") == 0
    assert all(sample(metrics, "withheld_total", gate=gate) == 0 for gate in GATES)
    assert sample(metrics, "store_dropped_total") == 0


def test_every_family_is_ours_or_the_process_s_and_carries_help():
    families = list(text_string_to_metric_families(build().render().decode()))
    assert families
    for family in families:
        assert family.name.startswith(("reconciler_", "process_"))
        assert family.documentation


def test_no_series_is_labelled_by_a_resource():
    metrics = build()
    metrics.record(entry(Outcome.CONVERGED, action("done")))
    assert b"patch-tun" not in metrics.render()


def test_a_verified_repair_is_counted_with_its_latency():
    metrics = build()
    metrics.record(entry(Outcome.CONVERGED, action("done")))
    assert sample(metrics, "actions_total", kind="port", verb="create", result="done") == 1
    assert sample(metrics, "event_to_repair_seconds_sum", controller="ovsdb") == 0.003


def test_a_failed_or_withheld_pass_is_no_repair():
    metrics = build()
    metrics.record(entry(Outcome.FAILED, action("done"), action("failed")))
    metrics.record(entry(Outcome.PENDING, action("withheld", "budget")))
    assert sample(metrics, "event_to_repair_seconds_count", controller="ovsdb") == 0
    assert sample(metrics, "withheld_total", gate="budget") == 1


def test_gauges_by_label_forget_what_is_over():
    metrics = build()
    metrics.set_resources({("port", Outcome.CONVERGED): 2, ("port", Outcome.FAILED): 1})
    metrics.set_resources({("port", Outcome.CONVERGED): 3})
    assert sample(metrics, "resources", kind="port", outcome="failed") == 0
    assert sample(metrics, "resources", kind="port", outcome="converged") == 3
    metrics.set_withheld(["budget", "budget", "paused"])
    metrics.set_withheld(["paused"])
    assert sample(metrics, "withheld_actions", gate="budget") == 0
    assert sample(metrics, "withheld_actions", gate="paused") == 1


def test_a_check_is_there_with_its_value_while_it_is_known():
    metrics = build()
    metrics.check("disk", ok=False, value=97.0, seconds=0.01)
    assert (sample(metrics, "check_ok", check="disk"), sample(metrics, "check_value", check="disk")) == (0, 97.0)
    assert sample(metrics, "check_seconds", check="disk") == 0.01
    metrics.check("disk", ok=True, value=None, seconds=0.02)
    assert (sample(metrics, "check_ok", check="disk"), sample(metrics, "check_value", check="disk")) == (1, None)
    metrics.check("disk", ok=None, value=None, seconds=0.0)
    metrics.check("disk", ok=None, value=None, seconds=0.0)
    assert b'check="disk"' not in metrics.render()


def test_only_the_held_revision_is_shown():
    metrics = build()
    metrics.set_revision("aaa")
    metrics.set_revision("bbb")
    assert sample(metrics, "revision_info", revision="aaa") is None
    assert sample(metrics, "revision_info", revision="bbb") == 1


def test_a_stream_that_broke_off_and_is_back_is_ready_and_counted():
    metrics = build()
    metrics.stream("ovsdb", ready=True)
    metrics.stream_event("ovsdb", 5.0)
    metrics.stream_broke("ovsdb", 2)
    metrics.stream("ovsdb", ready=True)
    assert sample(metrics, "stream_lost_total", stream="ovsdb") == 2
    assert sample(metrics, "stream_ready", stream="ovsdb") == 1
    assert sample(metrics, "stream_last_event_timestamp_seconds", stream="ovsdb") == 5.0


def test_a_stream_that_is_not_there_any_more_is_neither_ready_nor_silent():
    metrics = build()
    metrics.stream("openflow", ready=False)
    metrics.stream_event("openflow", 5.0)
    metrics.stream_broke("openflow")
    metrics.keep_streams({"ovsdb", "files"})
    assert sample(metrics, "stream_ready", stream="openflow") is None
    assert sample(metrics, "stream_last_event_timestamp_seconds", stream="openflow") is None
    assert sample(metrics, "stream_lost_total", stream="openflow") == 1
    metrics.stream("openflow", ready=True)
    assert sample(metrics, "stream_ready", stream="openflow") == 1


def test_the_oldest_of_each_outcome_is_shown_and_forgotten():
    metrics = build()

    def status(name: str, outcome: Outcome, since: float) -> ResourceStatus:
        return ResourceStatus(ResourceId("port", name), outcome, "why", since)

    metrics.set_oldest(
        [status("a", Outcome.FAILED, 9.0), status("b", Outcome.FAILED, 7.0), status("c", Outcome.CONFLICT, 8.0)]
    )
    assert sample(metrics, "oldest_unconverged_timestamp_seconds", outcome="failed") == 7
    assert sample(metrics, "oldest_unconverged_timestamp_seconds", outcome="conflict") == 8
    assert sample(metrics, "oldest_unconverged_timestamp_seconds", outcome="pending") == 0
    metrics.set_oldest([])
    assert sample(metrics, "oldest_unconverged_timestamp_seconds", outcome="failed") == 0


def test_last_converged_outlives_the_convergence():
    metrics = build()
    metrics.set_converged(7.0)
    metrics.set_converged(None)
    assert sample(metrics, "converged") == 0
    assert sample(metrics, "last_converged_timestamp_seconds") == 7.0


def test_a_node_s_metrics_are_its_own():
    one, other = build(), build()
    one.pass_finished("ovsdb", Outcome.CONVERGED, 0.1)
    assert sample(other, "passes_total", controller="ovsdb", outcome="converged") == 0
