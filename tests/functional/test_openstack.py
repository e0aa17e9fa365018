"""A daemon that follows OpenStack's notifications: a node made from YAML and from what RabbitMQ says, and kept."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import kombu
import pytest

from tests.desired.network.neutron import message
from tests.functional.daemon import Node
from tests.oslo import Publisher
from tests.rabbitmq import RabbitServer
from tests.relay import Relay

NETWORK = "6f1c3b5a-9e40-4a52-8c1d-0b7e5a91d301"
SUBNET = "58b7f4ac-0d92-4c3e-bf15-e80a6d47b205"
MODEL = """
model:
  nodes:
    n1: {roles: [compute], tunnel_ip: 10.10.10.20}
    n2: {roles: [compute], tunnel_ip: 10.10.10.30}
    n3: {roles: [compute], tunnel_ip: 10.10.10.40}
"""


def port(number: int, host: str, **more: Any) -> dict[str, Any]:
    return {
        "port": {
            "id": f"2d84e07f-c63b-47d5-9a0e-{number:012x}",
            "network_id": NETWORK,
            "mac_address": f"fa:16:3e:00:00:{number:02x}",
            "device_owner": "compute:nova",
            "device_id": "e412a86c-b9d7-4163-95fe-2c08b5d3fa06",
            "fixed_ips": [{"subnet_id": SUBNET, "ip_address": f"192.168.7.{number}"}],
            "binding:host_id": host,
            **more,
        }
    }


class Cloud:
    """RabbitMQ, a publisher, and a way to both for the daemon."""

    def __init__(self, server: RabbitServer, publisher: Publisher) -> None:
        self.server, self._publisher = server, publisher

    def tell(self, event: str, payload: Any) -> None:
        self._publisher.notify(self.server.url(), event, payload)


@pytest.fixture(scope="module")
def publisher() -> Iterator[Publisher]:
    with Publisher() as running:
        yield running


@pytest.fixture
def cloud(node: Node, rabbit_server: RabbitServer, publisher: Publisher) -> Iterator[Cloud]:
    rabbit_server.start()
    with Relay(node.ovs.netns, rabbit_server.port):
        cloud = Cloud(rabbit_server, publisher)
        cloud.tell("hello.world", {})  # the publisher makes the exchange
        node.set(
            amqp={"url": f"amqp://guest@127.0.0.1:{rabbit_server.port}/", "retry_max": 0.5, "queue": f"q{id(node)}"}
        )
        yield cloud


def heard(node: Node) -> bool:
    return any(stream.name == "amqp" and stream.ready for stream in node.client.status().streams)


@pytest.fixture
def running(node: Node, cloud: Cloud) -> Iterator[Node]:
    node.write(MODEL)
    node.start(env={"RECONCILER_AMQP__URL": cloud.server.url()})
    node.until(lambda: heard(node), "the broker is heard", 30)
    network = {"id": NETWORK, "name": "blue", "provider:network_type": "gre", "provider:segmentation_id": 77}
    cloud.tell("network.create.end", {"network": network})
    cloud.tell(
        "subnet.create.end",
        {"subnet": {"id": SUBNET, "network_id": NETWORK, "cidr": "192.168.7.0/24", "enable_dhcp": False}},
    )
    node.until(lambda: "br-tun" in node.ovs.vsctl("list-br").split(), "the network has its bridge")
    yield node
    node.stop()


def flows(node: Node) -> str:
    return "\n".join(node.ovs.flows("br-tun"))


def plugged(node: Node, number: int) -> None:
    """What Nova does for the instance of a port."""
    iface = port(number, "n1")["port"]["id"]
    name = f"tap{number}"
    node.ovs.vsctl(
        "add-port", "br-int", name, "--", "set", "interface", name, "type=internal", f"external_ids:iface-id={iface}"
    )


def test_ports_that_openstack_tells_of_become_flows_and_tags(running: Node, cloud: Cloud) -> None:
    cloud.tell("port.create.end", port(5, "n1"))
    running.until(lambda: "held_port" in running.client.status().resources, "it is held when Nova plugs it")
    running.converged()
    plugged(running, 5)
    running.until(lambda: running.ovs.vsctl("get", "port", "tap5", "tag") == "1", "the tap has its tag")
    cloud.tell("port.create.end", port(6, "n2"))
    running.until(lambda: "fa:16:3e:00:00:06" in flows(running), "the remote port has its flow")
    said = running.cli("explain", "192.168.7.6")
    assert "(blue)" in said.out, said.text
    assert "(openstack, network" in said.out


def test_what_makes_no_sense_is_told_and_the_node_is_held_all_the_same(running: Node, cloud: Cloud) -> None:
    for payload in ({}, {"port": None}, {"port": "x"}, {"port": {"id": "not-an-id", "network_id": 5}}, [], "garbage"):
        cloud.tell("port.create.end", payload)
    cloud.tell("port.create.end", port(5, "n2"))
    cloud.tell("port.create.end", port(6, "n9"))
    plugged(running, 7)
    twice = port(7, "n1")
    twice["port"]["fixed_ips"][0]["ip_address"] = "192.168.7.5"
    cloud.tell("port.create.end", twice)
    cloud.tell("port.create.end", port(8, "n2"))
    running.until(lambda: "fa:16:3e:00:00:08" in flows(running), "what came after it is followed")
    said = running.cli("status").out
    assert "2 messages were no notifications: a payload that is no object" in said
    assert "there is no node 'n9'" in said
    cloud.tell("port.create.end", port(9, "n1", fixed_ips=[{"subnet_id": SUBNET, "ip_address": "192.168.7.8"}]))
    cloud.tell("port.create.end", port(10, "n2", fixed_ips=[{"subnet_id": SUBNET, "ip_address": "192.168.7.8"}]))
    running.until(lambda: "is already made for" in running.cli("status").out, "two with one address are told")
    running.until(lambda: "fa:16:3e:00:00:0a" in flows(running), "and served")


def test_without_a_full_read_a_delete_is_withheld_and_says_why(running: Node, cloud: Cloud) -> None:
    plugged(running, 5)
    cloud.tell("port.create.end", port(5, "n1"))
    cloud.tell("port.create.end", port(6, "n2"))
    running.until(lambda: "fa:16:3e:00:00:06" in flows(running), "the remote port has its flow")
    cloud.tell("port.delete.end", {"port_id": port(6, "n2")["port"]["id"]})
    running.until(lambda: running.client.status().exit_code == 3, "a delete is withheld")
    running.is_untouched()
    assert "fa:16:3e:00:00:06" in flows(running)
    assert "never read whole" in running.cli("status").out


def test_with_the_broker_gone_and_the_daemon_killed_the_network_stands_as_last_known(
    running: Node, cloud: Cloud
) -> None:
    plugged(running, 5)
    cloud.tell("port.create.end", port(5, "n1"))
    cloud.tell("port.create.end", port(6, "n2"))
    running.until(lambda: "fa:16:3e:00:00:06" in flows(running), "the remote port has its flow")
    running.converged()
    cloud.server.kill()
    try:
        running.until(lambda: not heard(running), "the broker is missed")
        before = flows(running)
        running.kill9()
        running.set(amqp={"declare_exchanges": True})  # it goes with the broker, and would be looked for in 30 s again
        running.start(env={"RECONCILER_AMQP__URL": cloud.server.url()})
        assert flows(running) == before
        status = running.client.status()
        assert any("stands as last known" in notice for notice in status.notices), status.notices
        assert "guest:guest" not in running.cli("status", "-v").out
        running.ovs.ofctl("del-flows", "br-tun")
        running.until(lambda: "fa:16:3e:00:00:06" in flows(running), "the flows are back")
    finally:
        cloud.server.start()
    running.until(lambda: heard(running), "the broker is heard again")
    cloud.tell("port.create.end", port(7, "n2"))
    running.until(lambda: "fa:16:3e:00:00:07" in flows(running), "and followed again")


def whereto(node: Node) -> dict[str, str]:
    """The remote ports that br-tun knows, by MAC: the tunnel to their node."""
    found = re.findall(r"dl_dst=(fa:16:3e:\S\S:\S\S:\S\S) actions=.*output:\"?([\w-]+)", flows(node))
    names = {str(node.ovs.vsctl("get", "interface", name, "ofport")): name for name in TUNNELS.values()}
    return {mac: names.get(port, port) for mac, port in found}


TUNNELS = {"n2": "gre-0a0a0a1e", "n3": "gre-0a0a0a28"}


def test_a_flood_ends_in_what_the_last_words_said_also_after_a_restart(running: Node, cloud: Cloud) -> None:
    cloud.tell("port.create.end", port(5, "n1"))
    chance, where = random.Random(5), {}
    with kombu.Connection(cloud.server.url()) as connection, connection.channel() as channel:
        for at in range(3000):
            number, host = chance.randrange(10, 110), chance.choice(list(TUNNELS))
            event = "port.update.end" if number in where else "port.create.end"
            where[number] = host
            said = message(event, port(number, host), 2e9 + at)
            for body in (said, *([said] if at % 30 == 0 else []), *([b"{"] if at % 50 == 0 else [])):
                channel.basic_publish(channel.prepare_message(body), "neutron", "notifications.info")
    wanted = {f"fa:16:3e:00:00:{number:02x}": TUNNELS[host] for number, host in where.items()}
    running.until(lambda: whereto(running) == wanted, "all flows are those of the last words", 60)
    assert any("60 messages were no notifications" in notice for notice in running.client.status().notices)
    running.kill9()
    running.ovs.ofctl("del-flows", "br-tun")
    running.start(env={"RECONCILER_AMQP__URL": cloud.server.url()})
    running.until(lambda: whereto(running) == wanted, "what the store had not yet, the broker sent again", 60)


def test_a_mirror_that_the_store_could_not_tell_at_the_start_is_taken_over_when_it_can(
    running: Node, cloud: Cloud
) -> None:
    plugged(running, 5)
    cloud.tell("port.create.end", port(5, "n1"))
    cloud.tell("port.create.end", port(6, "n2"))
    running.until(lambda: "fa:16:3e:00:00:06" in flows(running), "the remote port has its flow")
    running.converged()
    assert running.stop() == 0
    away = running.state.with_name("away")
    running.state.rename(away)
    running.state.write_text("no directory: nothing can be stored here")
    running.start(converged=False, env={"RECONCILER_AMQP__URL": cloud.server.url()})
    running.until(lambda: "store" in str(running.client.status().notices), "the store is missed", 30)
    running.ovs.ofctl("del-flows", "br-tun")
    running.state.unlink()
    away.rename(running.state)
    running.until(lambda: "fa:16:3e:00:00:06" in flows(running), "what it remembers is held again", 60)


def test_openstack_is_followed_while_the_yaml_is_wrong(running: Node, cloud: Cloud) -> None:
    plugged(running, 5)
    cloud.tell("port.create.end", port(5, "n1"))
    running.until(lambda: running.ovs.vsctl("get", "port", "tap5", "tag") == "1", "the tap has its tag")
    for wrong in (MODEL.replace("tunnel_ip", "tunel_ip", 1), MODEL.replace("10.10.10.30", "10.10.10.20")):
        running.write(wrong)
        running.until(lambda: bool(running.client.status().config_problems), "the mistake is seen")
        number = 6 if "tunel_ip" in wrong else 7
        cloud.tell("port.create.end", port(number, "n2"))
        running.until(lambda number=number: f"fa:16:3e:00:00:0{number}" in flows(running), "the port has its flow")
        assert running.client.status().config_problems
    running.write(MODEL)
    running.until(lambda: not running.client.status().config_problems, "the YAML is right again")
    running.converged()
