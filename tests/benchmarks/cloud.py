"""What the benchmarks of notifications share: a broker, a way to it for a daemon on a private switch, and messages."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import kombu

from tests.benchmarks.daemon import Daemon
from tests.desired.network.neutron import Body, message, network, port, subnet, uid
from tests.ovs import PrivateOvs
from tests.rabbitmq import RabbitServer
from tests.relay import Relay
from tests.server import HOST

EXCHANGE, QUEUE = "neutron", "reconciler.bench"
NODES = 8
"""Other nodes, at which the ports are."""
MODEL = "model:\n  nodes:\n    bench: {roles: [compute], tunnel_ip: 10.0.0.1}\n" + "".join(
    f"    node{n}: {{roles: [compute], tunnel_ip: 10.0.0.{n + 2}}}\n" for n in range(NODES)
)
_FIRST_PORT = 1000


class Cloud:
    """Networks of which each has a port here, and ports of theirs on other nodes, told of by notifications."""

    def __init__(self, channel: Any, networks: int) -> None:
        self._channel, self._networks = channel, networks
        self._last = 0.0

    def send(self, body: bytes) -> None:
        self._channel.basic_publish(self._channel.prepare_message(body), EXCHANGE, "notifications.info")

    def tell(self, event: str, payload: Body) -> None:
        self.send(self.words(event, payload))

    def words(self, event: str, payload: Body) -> bytes:
        """Each later than the one before."""
        self._last = max(time.time(), self._last + 1e-6)
        return message(event, payload, self._last)

    def lay(self) -> None:
        """The networks, and a port of each on the node that is measured."""
        for n in range(self._networks):
            self.tell("network.create.end", {"network": network(n + 1)})
            self.tell("subnet.create.end", {"subnet": self._subnet(n)})
            here = self.port(-1 - n)
            self.tell("port.create.end", {"port": {**here, "network_id": uid(n + 1), "binding:host_id": "bench"}})

    def port(self, number: int, **more: Any) -> Body:
        """A port on another node."""
        at = (number % self._networks) + 1
        address = number + 1000
        return {
            **port(number + _FIRST_PORT, at, 500 + at),
            "fixed_ips": [{"subnet_id": uid(500 + at), "ip_address": f"10.{at}.{address >> 8}.{address & 255}"}],
            "binding:host_id": f"node{number % NODES}",
            **more,
        }

    def _subnet(self, n: int) -> Body:
        return subnet(
            501 + n, n + 1, cidr=f"10.{n + 1}.0.0/16", gateway_ip=None, enable_dhcp=False, allocation_pools=[],
            host_routes=[],
        )  # fmt: skip


def mac(number: int) -> bytes:
    """The address of a port."""
    return bytes.fromhex(port(number + _FIRST_PORT, 1, 1)["mac_address"].replace(":", ""))


@contextlib.contextmanager
def followed(ovs: PrivateOvs, server: RabbitServer) -> Iterator[Daemon]:
    """A daemon that is told where the broker is; not started."""
    daemon = Daemon(ovs)
    with daemon.settings.open("a") as settings:
        settings.write(
            f'[amqp]\nurl = "amqp://guest@{HOST}:{server.port}/"\nqueue = "{QUEUE}"\ndeclare_exchanges = true\n'
        )
    daemon.declare(MODEL)
    daemon.env["RECONCILER_AMQP__URL"] = server.url()
    with Relay(ovs.netns, server.port):
        yield daemon


@contextlib.contextmanager
def channel(url: str) -> Iterator[Any]:
    """To publish by, without OpenStack's library."""
    with kombu.Connection(url) as connection, connection.channel() as made:
        yield made
