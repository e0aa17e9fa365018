"""What a real Neutron server says of its changes, against what its API says afterwards: the mirror holds the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import kombu
import pytest

from desired.network.mirror import Limits, Mirror
from desired.network.model import (
    NetworkSpec,
    NeutronFloatingIpSpec,
    NeutronPortSpec,
    NodeSpec,
    Owner,
    RouterSpec,
    SubnetSpec,
)
from desired.network.notice import Notice, parse
from desired.resource import ResourceId, Resources
from desired.sources.neutron_api import FullRead, NeutronApi
from reconciler.settings_sections import NeutronSettings
from tests.neutron import NeutronServer
from tests.rabbitmq import RabbitServer

pytestmark = pytest.mark.timeout(600)  # the first one may have to install Neutron

TOGETHER = Limits(skew=0.0)
"""All here have one clock. The server tells it in whole seconds."""

UNHEARD = frozenset({Owner.DHCP, Owner.ROUTER_INTERFACE, Owner.ROUTER_GATEWAY, Owner.FLOATING_IP})
"""Ports that Neutron makes by itself: no notification tells of them."""


class Listener:
    """A queue of its own beside the metering's, from which everything that was sent until now can be taken."""

    def __init__(self, rabbit: RabbitServer, neutron: NeutronServer) -> None:
        self._neutron = neutron
        self._connection = kombu.Connection(rabbit.url())
        exchange = kombu.Exchange("neutron", "topic", durable=False, passive=True)
        self._queue = kombu.Queue("", exchange, "notifications.info", exclusive=True, auto_delete=True)(
            self._connection.channel()
        )
        self._queue.declare()

    def notices(self) -> list[Notice]:
        """All until now, in order: a network that is made now marks the end."""
        mark = self._neutron.create("network", name="mark")["id"]
        found: list[Notice] = []
        deadline = time.monotonic() + 60
        while not (found and found[-1].event == "network.create.end" and found[-1].payload["network"]["id"] == mark):
            message = self._queue.get(no_ack=True)
            if message is None:
                assert time.monotonic() < deadline, "the notifications did not come"
                time.sleep(0.01)
            else:
                found.append(parse(message.body, time.time()))
        self._neutron.delete("network", mark)
        return found[:-1]

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def neutron(neutron_server: NeutronServer, rabbit_server: RabbitServer) -> NeutronServer:
    """With nothing in it but an agent, and an exchange that exists because something was said."""
    rabbit_server.start()
    neutron_server.start()
    neutron_server.clear()
    neutron_server.report_agent("n1", tunnel_ip="10.10.10.20", mappings={"physnet1": "br-ex"})
    neutron_server.delete("network", neutron_server.create("network", name="first")["id"])
    return neutron_server


@pytest.fixture
def listener(neutron: NeutronServer, rabbit_server: RabbitServer) -> Iterator[Listener]:
    listener = Listener(rabbit_server, neutron)
    yield listener
    listener.close()


def read(neutron: NeutronServer) -> FullRead:
    """Late enough to be newer than all that was told before."""
    time.sleep(1.0)
    api = NeutronApi(NeutronSettings(endpoint=neutron.endpoint, timeout=30.0), token="", wall=time.time)
    return api.full_read(threading.Event())


def made(neutron: NeutronServer) -> dict[str, Any]:
    """Something of everything, in bulk and one by one, changed afterwards, and partly deleted again."""
    ids: dict[str, Any] = {}
    network = neutron.create("network", name="blue", provider__network_type="gre", provider__segmentation_id=999)
    ext = neutron.create("network", name="ext", provider__network_type="flat", provider__physical_network="physnet1",
                         router__external=True)  # fmt: skip
    four = neutron.create("subnet", network_id=network["id"], ip_version=4, cidr="172.16.1.0/24", enable_dhcp=False)
    neutron.create("subnet", network_id=network["id"], ip_version=6, cidr="fd00::/64", enable_dhcp=False)
    neutron.create("subnet", network_id=ext["id"], ip_version=4, cidr="10.6.0.0/15", enable_dhcp=False)
    one = {"network_id": network["id"], "device_owner": "compute:nova", "fixed_ips": [{"subnet_id": four["id"]}]}
    bulk = neutron.call("POST", "ports", {"ports": [{**one, "binding:host_id": f"n{each}"} for each in range(3)]})
    ports = [each["id"] for each in bulk["ports"]]
    neutron.update("port", ports[0], binding__host_id="n1")
    neutron.delete("port", ports[2])
    router = neutron.create("router", name="r")
    neutron.add_interface(router["id"], subnet_id=four["id"])
    neutron.update("router", router["id"], external_gateway_info={"network_id": ext["id"]},
                   routes=[{"destination": "10.9.0.0/16", "nexthop": "172.16.1.9"}])  # fmt: skip
    for each in (None, ports[1]):
        floating = neutron.create("floatingip", floating_network_id=ext["id"], port_id=each)
    neutron.update("floatingip", floating["id"], port_id=ports[0])
    neutron.update("subnet", four["id"], dns_nameservers=["10.6.0.2"])
    neutron.update("network", network["id"], name="bluer")
    gone = neutron.create("network", name="gone")
    neutron.create("subnet", network_id=gone["id"], ip_version=4, cidr="10.1.0.0/24", enable_dhcp=False)
    neutron.delete("network", gone["id"])
    ids.update(router=router["id"], subnet=four["id"], gone=gone["id"], ports=ports, ext=ext["id"])
    return ids


def told(resources: Resources) -> dict[ResourceId, Any]:
    """What notifications can tell: all but nodes, and the addresses and hosts of the ports that Neutron makes.

    Nor do they tell of subnets that go with their network. These dangle, and `desired.network.check` leaves them out.
    """
    found: dict[ResourceId, Any] = {}
    for rid, resource in resources.items():
        spec = resource.spec
        match spec:
            case NodeSpec():
                continue
            case NeutronPortSpec() if spec.owner in UNHEARD:
                continue
            case SubnetSpec() if ResourceId(NetworkSpec.kind, spec.network) not in resources:
                continue
            case RouterSpec():
                interfaces = tuple(each.model_copy(update={"ip": None}) for each in spec.interfaces)
                found[rid] = spec.model_copy(update={"interfaces": interfaces, "node": None})
            case _:
                found[rid] = spec
    return found


def test_notifications_and_a_full_read_tell_the_same(neutron: NeutronServer, listener: Listener) -> None:
    ids = made(neutron)
    heard, shown = Mirror(TOGETHER), Mirror(TOGETHER)
    heard.take(listener.notices())
    found = read(neutron)
    shown.full_read(found.started_at, found.objects)
    assert not shown.problems
    assert told(heard.resources) == told(shown.resources)
    kinds = [rid.kind for rid in told(heard.resources)]
    counted = {spec: kinds.count(spec.kind) for spec in (NetworkSpec, SubnetSpec, NeutronPortSpec, RouterSpec)}
    assert counted == {NetworkSpec: 2, SubnetSpec: 3, NeutronPortSpec: 2, RouterSpec: 1}
    assert kinds.count(NeutronFloatingIpSpec.kind) == 2
    assert heard.problem
    assert not shown.problem
    node = shown.resources[ResourceId(NodeSpec.kind, "n1")].spec
    assert isinstance(node, NodeSpec)
    assert (node.tunnel_ip, node.bridge_mappings) == ("10.10.10.20", {"physnet1": "br-ex"})
    assert not any(ids["gone"] in str(rid) for rid in heard.resources)

    heard.full_read(found.started_at, found.objects)  # and with the read, it is the same altogether
    assert specs(heard) == specs(shown)


def test_what_changes_after_a_full_read_is_followed_until_nothing_is_left(
    neutron: NeutronServer, listener: Listener
) -> None:
    ids = made(neutron)
    found = read(neutron)
    mirror = Mirror(TOGETHER)
    mirror.full_read(found.started_at, found.objects)
    mirror.take(listener.notices())  # late: the read has it all
    shown = Mirror(TOGETHER)
    shown.full_read(found.started_at, found.objects)
    assert specs(mirror) == specs(shown)

    for floating in neutron.all("floatingips"):
        neutron.delete("floatingip", floating["id"])
    neutron.update("router", ids["router"], external_gateway_info={}, routes=[])
    neutron.remove_interface(ids["router"], subnet_id=ids["subnet"])
    mirror.take(listener.notices())
    found = read(neutron)
    shown = Mirror(TOGETHER)
    shown.full_read(found.started_at, found.objects)
    assert told(mirror.resources) == told(shown.resources)

    neutron.clear()
    mirror.take(listener.notices())
    assert told(mirror.resources) == {}
    found = read(neutron)
    mirror.full_read(found.started_at, found.objects)
    assert {rid.kind for rid in mirror.resources} <= {NodeSpec.kind}


def specs(mirror: Mirror) -> dict[ResourceId, Any]:
    return {rid: resource.spec for rid, resource in mirror.resources.items()}
