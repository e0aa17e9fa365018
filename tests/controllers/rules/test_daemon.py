"""Rules under the whole daemon: contention, kill -9, a namespace that comes later, and what the journal says."""

from __future__ import annotations

import sys
import time

from tests.functional.daemon import Node
from tests.ovs import PrivateOvs

DESIRED = {
    "rules": {
        "q1": {
            "floating_ips": {"203.0.113.5": "10.0.0.5"},
            "snat": [{"source": "10.0.0.0/24", "to": "203.0.113.1"}],
        },
        "host": {"open_ports": [{"ports": [6082]}]},
    }
}
GENERATION = "from controllers.drivers.iptables.reading import generation; print(generation())"
FIP = "floating_ip/q1/203.0.113.5"


def in_q1(ovs: PrivateOvs, *argv: str) -> str:
    return ovs.run("ip", "netns", "exec", "q1", *argv)


def generation(ovs: PrivateOvs) -> str:
    """Moves with every write to the namespace's rules, whoever does it."""
    return in_q1(ovs, sys.executable, "-c", GENERATION)


def test_a_namespace_that_comes_later_is_waited_for_and_filled(ovs: PrivateOvs):
    node = Node(ovs)
    node.declare(**DESIRED)
    node.start(converged=False)
    node.says("rules/q1/*", "network namespace q1 is not there")
    node.until(lambda: "6082" in ovs.run("iptables-save", "-t", "filter"), "the host's rules are there")
    ovs.run("ip", "netns", "add", "q1")
    node.converged()
    assert "203.0.113.5" in in_q1(ovs, "iptables-save", "-t", "nat")
    assert node.crashes() == []


def test_drift_is_repaired_by_its_event_and_the_journal_says_what_and_who(ovs: PrivateOvs):
    ovs.run("ip", "netns", "add", "q1")
    node = Node(ovs)
    node.declare(**DESIRED)
    node.start()
    with node.repairs(FIP) as repair:
        in_q1(ovs, "iptables", "-t", "nat", "-D", "reconciler-PREROUTING", "1")
    assert repair.done.why == "rule is missing"
    assert repair.entry is not None
    assert "iptables (pid" in repair.entry.trigger
    with node.repairs(FIP) as repair:
        in_q1(ovs, "iptables", "-t", "nat", "-F")
    assert "jump from nat PREROUTING to reconciler-PREROUTING is missing" in repair.done.why
    assert node.crashes() == []


def test_kill_9_and_a_new_start_write_nothing_on_a_converged_node(ovs: PrivateOvs):
    ovs.run("ip", "netns", "add", "q1")
    node = Node(ovs)
    node.declare(**DESIRED)
    node.start()
    before = generation(ovs)
    for _ in range(2):
        node.kill9()
        node.start()
        node.is_untouched()
    assert generation(ovs) == before
    node.kill9()
    in_q1(ovs, "iptables", "-t", "nat", "-D", "reconciler-OUTPUT", "1")
    node.start()
    assert "203.0.113.5" in in_q1(ovs, "iptables", "-t", "nat", "-S", "reconciler-OUTPUT")
    assert node.crashes() == []


def test_a_rival_who_fights_for_one_rule_is_contended_and_never_wins_for_good(ovs: PrivateOvs):
    ovs.run("ip", "netns", "add", "q1")
    node = Node(ovs)
    node.declare(**DESIRED)
    node.start()
    fight = (
        'while test -e /run/netns/q1 && ! test -e "$0"; do'
        " ip netns exec q1 iptables -t nat -D reconciler-PREROUTING -d 203.0.113.5/32 -m comment --comment"
        ' "$1" -j DNAT --to-destination 10.0.0.5 2>/dev/null; sleep 0.02; done'
    )
    line = in_q1(ovs, "iptables", "-t", "nat", "-S", "reconciler-PREROUTING")
    comment = line.partition('--comment "')[2].partition('"')[0]
    end = ovs.directory / "end"
    rival = ovs.spawn(["sh", "-c", fight, str(end), comment], ovs.directory / "rival")
    try:
        node.until(lambda: node.outcome(FIP).startswith("contended"), "contended", within=20)
        assert node.outcome("rules/q1/*") == ""
        in_q1(ovs, "iptables", "-t", "nat", "-D", "reconciler-POSTROUTING", "2")
        node.until(
            lambda: "10.0.0.0/24" in in_q1(ovs, "iptables", "-t", "nat", "-S", "reconciler-POSTROUTING"),
            "the neighbour is repaired",
        )
    finally:
        end.touch()
        rival.wait()
    since = time.monotonic()
    node.converged(within=20)
    assert time.monotonic() - since < 15
    assert "203.0.113.5" in in_q1(ovs, "iptables", "-t", "nat", "-S", "reconciler-PREROUTING")
    assert node.crashes() == []


def test_a_wrong_rule_is_named_with_its_line(ovs: PrivateOvs):
    ovs.run("ip", "netns", "add", "q1")
    node = Node(ovs)
    head = "rules:\n  q1:\n    raw:\n      filter:\n        INPUT:\n"
    node.write(f"{head}          - -s 10.0.0.1 -j ACCEPT\n          - -j NOSUCH\n")
    node.start(converged=False)
    node.says("rule/q1/filter INPUT -j NOSUCH", "failed", "iptables refuses it", "NOSUCH")
    (status,) = [s for s in node.status().not_right if str(s.resource).startswith("rule/q1")]
    assert ":7:" in status.origin
    assert "10.0.0.1" in in_q1(ovs, "iptables", "-S", "reconciler-INPUT")
    assert node.crashes() == []
