"""A node that follows a real Neutron server: what is made by its API is on the node, what is deleted goes again.

The server, its database and its broker are real, and so are the daemon and Open vSwitch. The daemon hears notifications
from RabbitMQ and reads the API, both through a relay into its network namespace.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.report import Stream
from tests.functional.daemon import Node
from tests.neutron import NeutronServer
from tests.rabbitmq import RabbitServer
from tests.relay import Relay

pytestmark = pytest.mark.timeout(600)  # the first one may have to install Neutron

PATIENCE = 90.0
"""For what goes through Neutron, which takes its time on a busy machine."""


@dataclass
class Cloud:
    """A node that follows a server, and the network that is there from the beginning."""

    node: Node
    neutron: NeutronServer
    rabbit: RabbitServer
    network: Mapping[str, Any]
    here: Mapping[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        """With the broker's password in the environment, since it may not stand in the settings."""
        self.node.start(converged=False, env={"RECONCILER_AMQP__URL": self.rabbit.url()})

    def port(self, host: str, **more: Any) -> Mapping[str, Any]:
        given = {"network_id": self.network["id"], "binding__host_id": host, "device_owner": "compute:nova", **more}
        return self.neutron.create("port", **given)

    def flows(self) -> str:
        bridges = self.node.ovs.vsctl("list-br").split()
        return "\n".join(self.node.ovs.flows("br-tun")) if "br-tun" in bridges else ""

    def until_flow(self, port: Mapping[str, Any]) -> None:
        self.node.until(lambda: port["mac_address"] in self.flows(), "the port has its flow", PATIENCE)

    def until_no_flow(self, port: Mapping[str, Any]) -> None:
        self.node.until(lambda: port["mac_address"] not in self.flows(), "the port's flow is gone", PATIENCE)

    def quiet_reads(self) -> float | None:
        """When the API was read last, once that stands still: the first connection to the broker asks for a read."""
        before, now = -1.0, self.stream("neutron").last_event
        while before != now:
            time.sleep(1.5)
            before, now = now, self.stream("neutron").last_event
        return now

    def stream(self, name: str) -> Stream:
        """As `status` shows it; not ready while it is not there yet."""
        return next((each for each in self.node.status().streams if each.name == name), Stream(name, ready=False))


@pytest.fixture(scope="module")
def cloud(node_module: Node, neutron_server: NeutronServer, rabbit_server: RabbitServer) -> Iterator[Cloud]:
    node, neutron, rabbit = node_module, neutron_server, rabbit_server
    rabbit.start()
    neutron.start()
    neutron.clear()
    neutron.report_agent("n1", tunnel_ip="10.10.10.20")
    neutron.report_agent("n2", tunnel_ip="10.10.10.30")
    network = neutron.create("network", name="blue", provider__network_type="gre", provider__segmentation_id=999)
    neutron.create("subnet", network_id=network["id"], ip_version=4, cidr="172.16.1.0/24", enable_dhcp=False)
    cloud = Cloud(node, neutron, rabbit, network)
    node.write("bridges:\n  br-own: {}\n")
    node.set(neutron={"endpoint": neutron.endpoint, "interval": 3600, "spread": 0.2, "timeout": 5})
    node.set(amqp={"declare_exchanges": True})  # Neutron's goes with the broker, and would be looked for in 30 s again
    cloud.here = cloud.port("n1")
    with Relay(node.ovs.netns, rabbit.port), Relay(node.ovs.netns, neutron.port):
        cloud.start()
        yield cloud
        assert node.stop() == 0


def test_what_was_there_before_the_daemon_is_read(cloud: Cloud) -> None:
    """Nodes come from what their agents report, the rest from a full read; an instance's tap gets its local VLAN."""
    there = cloud.port("n2")
    cloud.until_flow(there)
    assert "10.10.10.30" in cloud.node.ovs.vsctl("--columns=options", "list", "interface")
    device = f"type=internal external_ids:iface-id={cloud.here['id']}".split()
    cloud.node.ovs.vsctl("add-port", "br-int", "tap-vm", "--", "set", "interface", "tap-vm", *device)
    cloud.node.until(lambda: cloud.node.ovs.vsctl("get", "port", "tap-vm", "tag").strip() != "[]", "the tap has a tag")


def test_a_port_that_is_made_and_deleted_by_the_api_comes_and_goes(cloud: Cloud) -> None:
    """By its notifications alone: the next read is an hour away."""
    cloud.node.until(lambda: cloud.stream("amqp").ready, "the broker is heard", PATIENCE)
    reads = cloud.quiet_reads()
    port = cloud.port("n2")
    cloud.until_flow(port)
    cloud.neutron.delete("port", port["id"])
    cloud.until_no_flow(port)
    assert cloud.stream("neutron").last_event == reads


def test_with_the_server_and_the_broker_away_the_network_stays(cloud: Cloud) -> None:
    port = cloud.port("n2")
    cloud.until_flow(port)
    before = cloud.flows()
    cloud.neutron.stop()
    cloud.rabbit.kill()
    try:
        cloud.node.until(lambda: not cloud.stream("amqp").ready, "the broker is missed", PATIENCE)
        assert cloud.node.stop() == 0
        cloud.start()  # with nothing but what the store remembers
        away = "the network stays as it was last known"
        cloud.node.until(lambda: away in cloud.stream("neutron").detail, "the server is missed", PATIENCE)
        cloud.node.until(lambda: cloud.node.status().revision, "the node has a desired state", PATIENCE)
        time.sleep(1.0)
        assert sorted(cloud.flows().splitlines()) == sorted(before.splitlines())
    finally:
        cloud.rabbit.start()
        cloud.neutron.start()
    cloud.until_flow(cloud.port("n2"))
    cloud.node.until(lambda: cloud.stream("neutron").ready, "the server is read again", PATIENCE)


def test_what_is_deleted_while_nobody_listens_goes_with_the_next_read(cloud: Cloud) -> None:
    port = cloud.port("n2")
    cloud.until_flow(port)
    assert cloud.node.stop() == 0
    cloud.rabbit.kill()  # and with it what it kept for the node
    cloud.rabbit.start()
    cloud.neutron.delete("port", port["id"])
    assert port["mac_address"] in cloud.flows()
    cloud.start()
    cloud.until_no_flow(port)
