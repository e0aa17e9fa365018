"""A patch port is deleted under traffic, again and again: pings of 10 ms say how long the node is without it."""

from __future__ import annotations

import time

from tests.lab import service
from tests.lab.cluster import lab

DESIRED = """
bridges: {br-int: {fail_mode: secure}, br-tun: {fail_mode: secure}}
patches:
  - {br-int: patch-tun, br-tun: patch-int}
ports: {vm1: {bridge: br-int, type: system}, vm2: {bridge: br-tun, type: system}}
flows: {br-int: ["priority=1,actions=NORMAL"], br-tun: ["priority=1,actions=NORMAL"]}
"""
TIMES = 12


def test_a_patch_port_that_is_deleted_under_traffic_costs_a_few_packets_and_is_said_to_be_well() -> None:
    """Open vSwitch says of one pair in ten that it has no peer, though it has: that must not be mended by a cut."""
    with lab("network") as cluster:
        node = cluster.network
        node.plug("vm1", "192.168.1.1/24")
        node.plug("vm2", "192.168.1.2/24")
        service.enable(node, DESIRED)
        with cluster.pinging(node, "vm1", "192.168.1.2") as ping:
            for time_ in range(TIMES):
                node.run("ovs-vsctl", "--no-wait", "del-port", ("patch-int", "patch-tun")[time_ % 2])
                time.sleep(0.7)  # longer than an error is borne with
        assert node.eventually(lambda: service.converged(node)), node.try_run("reconcile", "status")
        told = node.run("reconcile", "events")
        assert told.count("port is missing -> created again") == TIMES, told
        assert "joined again" not in told
        # Each deletion costs the packet or two of its repair; half a second without the pair would cost fifty.
        assert len(ping.lost) < 5 * TIMES, ping.lost
        for port in ("patch-int", "patch-tun"):
            assert node.run("ovs-vsctl", "get", "Interface", port, "error").strip() in {"[]", '""'}
