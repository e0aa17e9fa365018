"""The installations of ``desired/examples``, booted: nodes, wires and the daemon in each, as their README pages say.

``./demo`` shows one of them to a person, ``test_example_*.py`` test them. What an installation needs besides its YAML
is here: which nodes there are, which of them tells its story, and what the outside world has to be like.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import service
from tests.lab.cluster import CHECKOUT, OVS, Cluster, Node, lab

EXAMPLES = CHECKOUT / "desired" / "examples"
TREE = "/etc/reconciler/desired"


@dataclass(frozen=True, slots=True)
class Example:
    """`nodes` in the order of their addresses; `teller` is the one whose story is told; `outside` are commands."""

    name: str
    nodes: tuple[str, ...]
    teller: str
    wants: tuple[str, ...] = OVS
    outside: tuple[str, ...] = ()
    before: str = ""
    """A shell script that every node runs before its daemon starts: what other hands would have made there."""
    settings: str = ""

    @property
    def directory(self) -> Path:
        return EXAMPLES / self.name


_SECOND_PROVIDER = """
ip netns add provider2; ip link add uplink2 type veth peer name eth0 netns provider2
ip link set uplink2 up; ip -n provider2 link set eth0 up; ip -n provider2 addr add 198.51.100.1/24 dev eth0
ip netns exec provider2 ethtool -K eth0 tx off >/dev/null
"""
"""The router of a second provider, at the end of a cable that the lab does not have: uplink2."""

_FIREWALL = """
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A INPUT -p tcp --dport 22 -j ACCEPT
iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited
"""
"""As a distribution has it: everything but what is named is rejected at the end of INPUT."""

_DISTRIBUTION = f"""{_FIREWALL}
ip addr add 203.0.113.20/24 dev eth2
mkdir -p /etc/nova /etc/neutron
cat >/etc/nova/nova.conf <<'TEXT'
# Packaged.
[DEFAULT]
verbose = True
vnc_enabled = True

[spice]
# enabled = False
TEXT
cat >/etc/neutron/l3_agent.ini <<'TEXT'
# Packaged.
[DEFAULT]
external_network_bridge = br-ex
TEXT
printf '[Service]\\nExecStart=/bin/sleep infinity\\n' >/usr/lib/systemd/system/neutron-l3-agent.service
"""
"""What a distribution's packages leave on a node besides."""

ALL = {
    example.name: example
    for example in (
        Example(
            name="three-node-gre",
            nodes=("controller", "network", "compute"),
            teller="network",
            outside=("ip address add 10.6.0.1/15 dev eth0",),
            settings='[mqtt]\nurl = "mqtt://172.31.0.10"\n',
        ),
        Example(
            name="all-in-one-external",
            nodes=("all-in-one",),
            teller="all-in-one",
            before=_SECOND_PROVIDER,
        ),
        Example(
            name="single-host-proxy-arp",
            nodes=("host",),
            teller="host",
            outside=("ip route add 192.168.77.0/24 via 203.0.113.2",),
        ),
        Example(
            name="ha-services",
            nodes=("ha1", "ha2", "ha3"),
            teller="ha1",
            before=_FIREWALL,
        ),
        Example(
            name="console-and-config",
            nodes=("node",),
            teller="node",
            wants=(),
            before=_DISTRIBUTION,
        ),
    )
}


@contextlib.contextmanager
def booted(example: Example) -> Iterator[Cluster]:
    """Its nodes are running and wired, with nothing of the example on them yet."""
    with lab(*example.nodes, wants=example.wants) as cluster:
        for command in example.outside:
            cluster.outside.run("sh", "-ec", command)
        yield cluster


def install(example: Example, node: Node, settings: str = "") -> None:
    """Put the example's YAML, settings and the shipped unit on a node and let it start; `service.started` waits."""
    if example.before:
        node.sh(example.before)
    for path in trees(example):
        node.write(f"{TREE}/{path.name}", path.read_text(encoding="utf-8"))
    service.boot(node, service.SETTINGS + settings + example.settings)


def trees(example: Example) -> Sequence[Path]:
    """Its YAML."""
    return sorted(example.directory.glob("*.yaml"))


@contextlib.contextmanager
def installed(name: str, settings: str = "settle_remove = 0.2\n") -> Iterator[Cluster]:
    """An example as it is when all its nodes are as declared."""
    example = ALL[name]
    with booted(example) as cluster:
        for node in cluster.nodes.values():
            install(example, node, settings)
        settled(cluster)
        yield cluster


def settled(cluster: Cluster, within: float = 60.0) -> None:
    """Wait until every node that is switched on is as declared; AssertionError with what is not, else."""
    for node in cluster.nodes.values():
        if node.pid:
            assert node.eventually(lambda node=node: service.converged(node), within), (
                f"{node.name}:\n{node.try_run('reconcile', 'status')}"
                f"{node.try_run('journalctl', '-u', 'reconciler', '--no-pager', '-n', '20')}"
            )
