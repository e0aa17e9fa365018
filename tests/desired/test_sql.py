"""The contract of a store, held by SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from desired.kinds.ovs import BridgeSpec
from desired.resource import Origin, Resource, ResourceId
from desired.sql import SqlStore
from desired.sql.rows import SHOWN_LINES
from desired.store import (
    HistoryQuery,
    JournalRow,
    MirrorRow,
    PauseRow,
    ResourceRow,
    Retention,
    RevisionRow,
    StatusRow,
    Store,
)

DAY = 86400.0
LONG_NAME = "br-tun/" + "table=2,priority=1," * 60
"""A flow's name has any length: this is beyond what an index of any database takes."""


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    fixtures = {"postgresql": "postgres_url", "mariadb": "mariadb_url"}
    if request.param in fixtures:
        return str(request.getfixturevalue(fixtures[request.param]))
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = SqlStore(url, "node-1")
    made.open()
    yield made
    made.close()


def flow(name: str, line: int = 1, **spec: object) -> ResourceRow:
    return ResourceRow("flow", name, spec, "files", "/etc/reconciler/desired/a.yaml", line, 3, "flows[0]")


def action(resource: str, result: str = "done") -> dict[str, str]:
    return {"resource": resource, "verb": "create", "why": "missing", "before": "", "after": "x", "result": result,
            "detail": "", "gate": ""}  # fmt: skip


def entry(pass_id: int, *resources: str, at: float | None = None, outcome: str = "converged") -> JournalRow:
    actions = tuple(action(resource) for resource in resources)
    at = 1000.0 + pass_id if at is None else at
    return JournalRow(pass_id, at, "flow/br-int", "event", "abc", outcome, 0.012, 0.03, actions)


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.last_revision() is None
    assert store.revisions() == []
    assert store.history(HistoryQuery()) == []
    assert store.last_pass_id() == 0
    assert (store.statuses(), store.pauses(), store.approvals()) == ([], [], [])


def test_a_revision_comes_back_with_its_resources_and_where_they_were_declared(store: Store) -> None:
    row = RevisionRow("abc", 10.0, "Eva", "new tunnel", None, 2)
    origin = Origin("files", "/etc/reconciler/desired/a.yaml", 3, 5, "bridges[0]")
    bridge = Resource(ResourceId("bridge", "br-int"), BridgeSpec(other_config={"a": "ü\t"}), origin, 1)
    rows = [ResourceRow.of(bridge), flow(LONG_NAME, bridge="br-tun")]
    store.save_revision(row, rows)
    assert store.last_revision() == (row, rows)


def test_only_what_differs_between_revisions_is_written_and_the_newest_is_the_current_one(store: Store) -> None:
    rows = [flow(f"f{number:04}", number) for number in range(1200)]
    store.save_revision(RevisionRow("a", 1.0), rows)
    store.save_revision(RevisionRow("b", 2.0), [*rows[1:], flow("g")])
    last = store.last_revision()
    assert last is not None
    assert last[0].revision == "b"
    assert list(last[1]) == [*rows[1:], flow("g")]
    store.save_revision(RevisionRow("a", 0.5), rows)
    last = store.last_revision()
    assert last is not None
    assert (last[0].revision, last[0].at, list(last[1])) == ("a", 0.5, rows)
    assert [row.revision for row in store.revisions()] == ["a", "b"]
    assert [row.revision for row in store.revisions(limit=1)] == ["a"]


def test_the_same_revision_again_updates_its_time_and_where_things_are_declared(store: Store) -> None:
    store.save_revision(RevisionRow("a", 1.0, "Eva", "first"), [flow("f", line=1)])
    store.save_revision(RevisionRow("a", 5.0, "Ida", "second"), [flow("f", line=8)])
    last = store.last_revision()
    assert last == (RevisionRow("a", 5.0, "Eva", "first", None, 1), [flow("f", line=8)])


def test_a_revision_remembers_when_it_was_first_applied(store: Store) -> None:
    store.save_revision(RevisionRow("a", 1.0), [])
    store.mark_applied("a", 3.0)
    store.mark_applied("a", 9.0)
    store.mark_applied("never heard of", 9.0)
    store.save_revision(RevisionRow("a", 10.0), [])
    assert [row.applied for row in store.revisions()] == [3.0]


def test_the_journal_gives_back_what_it_was_given_newest_first(store: Store) -> None:
    finding = {"resource": "port/p", "outcome": "pending", "reason": "waits", "waits_for": ["bridge/b", "ovsdb"]}
    rows = [replace(entry(1, f"flow/{LONG_NAME}", "flow/b"), findings=(finding,)), entry(2), entry(3, "flow/b")]
    store.append_journal(rows[:2])
    store.append_journal(rows[2:])
    store.append_journal([])
    assert store.history(HistoryQuery()) == rows[::-1]
    assert store.last_pass_id() == 3


def test_history_selects_by_resource_time_outcome_and_number(store: Store) -> None:
    finding = {"resource": "flow/b", "outcome": "pending", "reason": "waits", "waits_for": []}
    rows = [
        entry(1, "flow/a", "flow/b"),
        entry(2, "flow/a", outcome="failed"),
        replace(entry(3), findings=(finding,)),
        entry(4, f"flow/{LONG_NAME}"),
    ]
    store.append_journal(rows)

    def ids(**query: object) -> list[int]:
        return [row.pass_id for row in store.history(HistoryQuery(**query))]  # type: ignore[arg-type]

    assert ids(resource="flow/b") == [3, 1]
    assert ids(resource=f"flow/{LONG_NAME}") == [4]
    assert ids(resource="flow") == []
    assert ids(since=1003.0) == [4, 3]
    assert ids(outcomes=("failed", "pending")) == [2]
    assert ids(limit=2) == [4, 3]
    assert ids(resource="flow/a", limit=1) == [2]
    (only,) = store.history(HistoryQuery("flow/b", limit=1, outcomes=["converged"], since=1003.0))
    assert (only.actions, only.findings) == ((), (finding,))


def test_history_of_a_resource_has_its_lines_only(store: Store) -> None:
    store.append_journal([entry(1, *(f"flow/{number}" for number in range(1000)))])
    (found,) = store.history(HistoryQuery("flow/977"))
    assert found.actions == (action("flow/977"),)


def test_history_of_everything_says_how_much_of_a_huge_pass_it_leaves_out(store: Store) -> None:
    store.append_journal([entry(1, *(f"flow/{number}" for number in range(1000)))])
    (found,) = store.history(HistoryQuery())
    assert len(found.actions) == SHOWN_LINES + 1
    assert found.actions[SHOWN_LINES - 1]["resource"] == f"flow/{SHOWN_LINES - 1}"
    assert found.actions[-1].keys() == action("").keys()
    assert found.actions[-1]["detail"].startswith(f"{1000 - SHOWN_LINES} more")


def test_a_batch_that_is_sent_twice_is_there_once(store: Store) -> None:
    rows = [entry(number, "flow/a") for number in range(1, 700)]
    store.append_journal(rows[:600])
    store.append_journal(rows)
    assert store.history(HistoryQuery(limit=1000)) == rows[::-1]


def test_numbers_that_start_again_are_other_passes(store: Store) -> None:
    store.append_journal([entry(1, at=1.0)])
    store.append_journal([entry(1, at=2.0)])
    assert [row.at for row in store.history(HistoryQuery())] == [2.0, 1.0]


def test_statuses_are_replaced_as_a_whole(store: Store) -> None:
    rows = [StatusRow(f"flow/{LONG_NAME}{number}", "pending", "waits", 5.5, "refs") for number in range(700)]
    store.save_statuses(rows)
    assert store.statuses() == rows
    store.save_statuses(rows[5:7])
    assert store.statuses() == rows[5:7]
    store.save_statuses([])
    assert store.statuses() == []


def test_a_pause_is_kept_until_it_is_ended_and_the_later_one_counts(store: Store) -> None:
    first = PauseRow("node", "maintenance", 1.0, 3600.0, "eva")
    long = PauseRow(f"flow/{LONG_NAME}", "look at it", 2.0)
    store.save_pause(first)
    store.save_pause(long)
    store.save_pause(replace(first, at=3.0, until=None))
    assert store.pauses() == [long, replace(first, at=3.0, until=None)]
    store.delete_pause("node")
    store.delete_pause("never paused")
    assert store.pauses() == [long]


def test_an_approval_is_kept_once(store: Store) -> None:
    store.save_approval("abc", 1.0, "eva")
    store.save_approval("abd", 2.0, "eva")
    store.save_approval("abc", 3.0, "ida")
    assert store.approvals() == ["abd", "abc"]


def test_a_mirror_comes_back_as_it_was_last_told(store: Store, url: str) -> None:
    made = MirrorRow("port", "p1", {"id": "p1", "name": "ü\0\ud800", "fixed_ips": [{"ip_address": None}]}, 5.25, 7)
    seen = MirrorRow("network", "n1", {"id": "n1"}, 2.0, None, {"older": {"mtu": [1.5, None]}})
    store.save_mirror("openstack", [made, seen, MirrorRow("port", "p2", {}, 1.0)], [])
    store.save_mirror("other", [MirrorRow("port", "p1", {"of": "another"}, 9.0)], [])
    dead = MirrorRow("network", "n1", None, 6.0)
    store.save_mirror("openstack", [dead], [("port", "p2"), ("port", "never there")])
    other = SqlStore(url, "node-2")
    assert other.mirror("openstack") == []
    other.close()
    found = {(row.kind, row.name): row for row in store.mirror("openstack")}
    assert found.keys() == {("port", "p1"), ("network", "n1")}
    assert found["network", "n1"] == dead
    again = found["port", "p1"]
    assert (again.at, again.revision, again.more) == (5.25, 7, {})
    assert again.body is not None
    assert again.body["fixed_ips"] == [{"ip_address": None}]


def test_a_large_mirror_is_written_in_pieces(store: Store) -> None:
    rows = [MirrorRow("port", f"p{number}", {"number": number}, float(number)) for number in range(1200)]
    store.save_mirror("openstack", rows, [])
    store.save_mirror("openstack", rows[:700], [("port", row.name) for row in rows[700:]])
    assert sorted(row.at for row in store.mirror("openstack")) == [float(number) for number in range(700)]


def test_nodes_share_a_database_and_see_nothing_of_each_other(store: Store, url: str) -> None:
    other = SqlStore(url, "node-2")
    store.save_revision(RevisionRow("a", 1.0), [flow("f")])
    store.append_journal([entry(7, "flow/f")])
    store.save_statuses([StatusRow("flow/f", "pending", "", 1.0)])
    store.save_pause(PauseRow("node", "", 1.0))
    store.save_approval("a", 1.0, "")
    assert (other.last_revision(), other.last_pass_id(), other.history(HistoryQuery("flow/f"))) == (None, 0, [])
    assert (other.statuses(), other.pauses(), other.approvals()) == ([], [], [])
    other.save_statuses([])
    other.save_pause(PauseRow("node", "", 9.0))
    other.delete_pause("node")
    other.append_journal([entry(7, "flow/f")])
    assert other.trim(Retention(0, 0, 0), 1e9) == 0
    other.close()
    assert len(store.statuses()) == len(store.pauses()) == len(store.history(HistoryQuery())) == 1


def test_text_that_a_database_would_refuse_is_made_to_fit(store: Store) -> None:
    odd = "a\0b\ud800c"
    store.save_revision(RevisionRow("r" * 100, 1.0, odd, odd), [ResourceRow("flow", odd, {"f": odd}, odd)])
    store.append_journal([replace(entry(1, odd), trigger=odd, findings=({"reason": odd, "list": [odd]},))])
    store.save_statuses([StatusRow(odd, "x" * 100, odd * 100_000, 1.0, odd)])
    store.save_pause(PauseRow(odd, odd, 1.0, None, odd))
    store.save_approval("r" * 100, 1.0, odd)
    (row,) = store.history(HistoryQuery())
    assert row.trigger == row.actions[0]["resource"] == "a\ufffdb?c"
    assert len(store.statuses()) == len(store.pauses()) == len(store.approvals()) == 1
    last = store.last_revision()
    assert last is not None
    assert last[0].revision == "r" * 64


def test_retention_by_age_keeps_the_newest_pass(store: Store) -> None:
    now = 100 * DAY
    store.append_journal([entry(number, "flow/a", at=(number % 50) * DAY) for number in range(1, 2001)])
    assert store.trim(Retention(journal_seconds=60 * DAY), now) == 2 * 1599
    left = store.history(HistoryQuery(limit=3000))
    assert [row.pass_id for row in left if row.at < 40 * DAY] == [2000]
    assert all(row.at >= 40 * DAY for row in left[1:])
    assert len(left) == 401
    assert store.trim(Retention(journal_seconds=60 * DAY), now) == 0


def test_retention_by_rows_counts_passes_and_their_lines(store: Store) -> None:
    store.append_journal([entry(number, "flow/a", "flow/b") for number in range(1, 501)])
    assert store.trim(Retention(journal_rows=300), 2000.0) == 400 * 3
    assert [row.pass_id for row in store.history(HistoryQuery(limit=1000))] == list(range(500, 400, -1))
    assert len(store.history(HistoryQuery("flow/a", limit=1000))) == 100


def test_retention_keeps_the_newest_revisions_and_what_they_declare(store: Store) -> None:
    for number in range(20):
        store.save_revision(RevisionRow(f"r{number}", float(number)), [flow("stays"), flow(f"f{number}")])
    assert store.trim(Retention(revisions=5), 100.0) == 15 + 15
    assert [row.revision for row in store.revisions()] == ["r19", "r18", "r17", "r16", "r15"]
    last = store.last_revision()
    assert last is not None
    assert [row.name for row in last[1]] == ["f19", "stays"]
    store.trim(Retention(revisions=0), 100.0)
    assert store.last_revision() == last


def test_retention_takes_ended_pauses_and_approvals_of_forgotten_revisions(store: Store) -> None:
    now = 100 * DAY
    store.save_revision(RevisionRow("known", 1.0), [])
    store.save_approval("known", 1.0, "")
    store.save_approval("old", 1.0, "")
    store.save_approval("new", now, "")
    store.save_pause(PauseRow("node", "", 1.0, until=2.0))
    store.save_pause(PauseRow("flow", "", 1.0, until=now - 60.0))
    store.save_pause(PauseRow("port", "", 1.0))
    assert store.trim(Retention(), now) == 2
    assert store.approvals() == ["known", "new"]
    assert {row.what for row in store.pauses()} == {"flow", "port"}


def test_a_closed_store_opens_again_by_itself(store: Store) -> None:
    store.save_approval("a", 1.0, "")
    store.close()
    store.close()
    assert store.approvals() == ["a"]
