"""A network node with everything on it: what it declares, and the foreign things that stand beside and between it.

20 router namespaces with their NAT, 200 flows, tunnels, 5 services (and Open vSwitch's own two), files, host rules.
Foreign: a bridge, ports, a namespace, devices, addresses, rules in the host and in two of our namespaces, a unit, lines
of files. Made for ``tests/lab/breaker.py``.
"""

from __future__ import annotations

import json
from typing import Any

from tests.lab import service
from tests.lab.cluster import Cluster, Node

ROUTERS = tuple(f"{number:02d}" for number in range(1, 21))
SHARED = ROUTERS[:2]
"""Routers in whose namespaces others have things, too."""
BRIDGES = ("br-int", "br-tun", "br-ex")
TUNNELS = tuple(f"gre-{number}" for number in range(1, 5))
FLOWS = 200
INI = "/etc/neutron/l3_agent.ini"
PLAIN = "[Service]\nExecStart=/bin/sleep 100000\n"
_TEMPLATE = """[Service]
ExecStart=/bin/sleep 100000
NetworkNamespacePath=/run/netns/qrouter-%i
Restart=always
RestartSec=100ms
[Install]
WantedBy=multi-user.target
"""
_OWN = "[Service]\nExecStart=/bin/sleep 100000\n[Install]\nWantedBy=multi-user.target\n"
_WEB = "[Service]\nExecStart=/usr/bin/python3 -m http.server --bind 127.0.0.1 --directory /root/www 8775\n"
UNITS = {"plain": PLAIN, "agent": PLAIN, "stopped": PLAIN, "alien": PLAIN, "web": _WEB, "dhcp@": _TEMPLATE}
SERVICES = ("plain", "agent", "web", "own", "dhcp@03", "stopped", "ovs-vswitchd", "ovsdb-server")
ALIEN_FLOW = "cookie=0x43,table=1,priority=5,udp,actions=drop"


def namespace(router: str) -> str:
    return f"qrouter-{router}"


def desired(node: Node) -> str:
    """The whole declaration, as JSON, which is YAML."""
    return json.dumps(
        {
            "bridges": {
                **{bridge: {"fail_mode": "secure"} for bridge in BRIDGES},
                "br-phy": {"fail_mode": "standalone"},
                "br-sh": {"fail_mode": "secure", "flows": "shared"},
            },
            "patches": [{"br-int": "patch-tun", "br-tun": "patch-int"}, {"br-int": "int-br-ex", "br-ex": "phy-br-ex"}],
            "ports": _ports(node),
            "flows": _flows(),
            "namespaces": {namespace(router): _router(router) for router in ROUTERS},
            "host": {
                "links": {
                    "br-phy": {"up": True, "addresses": [f"{node.underlay}/24"]},
                    "virbr9": {"type": "bridge", "mac": "fa:16:3e:99:00:09", "addresses": ["10.99.0.1/24"]},
                },
                "routes": [{"to": "10.98.0.0/16", "via": "10.99.0.2", "onlink": True, "dev": "virbr9"}],
                "sysctls": {"net.ipv4.conf.all.proxy_arp": 1, "net.ipv4.ip_forward": 1},
            },
            "rules": {"host": _host_rules(), **{namespace(router): _nat(router) for router in ROUTERS}},
            "services": _services(),
            "files": {
                INI: {"ini": {"DEFAULT": {"external_network_bridge": "", "gateway_external_network_id": ""}}},
                "/etc/hosts": {"blocks": {"cluster": "10.0.0.1 controller\n10.0.0.2 compute1"}},
                "/etc/sysctl.d/60-routers.conf": {"content": "net.ipv4.ip_forward = 1\n", "mode": "0644"},
            },
        }
    )


def _ports(node: Node) -> dict[str, Any]:
    ports: dict[str, Any] = {
        "eth1": {"bridge": "br-phy", "type": "system"},
        "eth2": {"bridge": "br-ex", "type": "system"},
    }
    for number, name in enumerate(TUNNELS, 2):
        peer = node.underlay.rpartition(".")[0] + f".{100 + number}"
        options = {"in_key": "flow", "out_key": "flow"}
        ports[name] = {
            "bridge": "br-tun", "type": "gre", "local_ip": node.underlay, "remote_ip": peer, "options": options
        }  # fmt: skip
    for number, router in enumerate(ROUTERS, 1):
        ports[f"qr-{router}"] = {"bridge": "br-int", "tag": number, "mac": f"fa:16:3e:01:00:{number:02x}"}
        ports[f"qg-{router}"] = {"bridge": "br-ex", "mac": f"fa:16:3e:02:00:{number:02x}"}
    return ports


def _flows() -> dict[str, list[str]]:
    """The multi-table layout, with unicast entries until there are `FLOWS` in all."""
    tags = range(1, len(ROUTERS) + 1)
    outputs = ",".join(f"output:{tunnel}" for tunnel in TUNNELS)
    tun = [
        "table=0,priority=1,in_port=patch-int,actions=resubmit(,2)",
        *(f"table=0,priority=1,in_port={tunnel},actions=resubmit(,3)" for tunnel in TUNNELS),
        "table=0,priority=0,actions=drop",
        "table=2,priority=0,dl_dst=00:00:00:00:00:00/01:00:00:00:00:00,actions=resubmit(,20)",
        "table=2,priority=0,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=resubmit(,22)",
        "table=3,priority=0,actions=drop",
        *(f"table=3,priority=1,tun_id={tag},actions=mod_vlan_vid:{tag},resubmit(,10)" for tag in tags),
        "table=10,priority=1,actions=output:patch-int",
        "table=20,priority=0,actions=resubmit(,22)",
        *(f"table=22,priority=1,dl_vlan={tag},actions=strip_vlan,set_tunnel:{tag},{outputs}" for tag in tags),
        "table=22,priority=0,actions=drop",
    ]
    whole = {
        "br-int": ["table=0,priority=1,actions=NORMAL", "table=23,priority=0,actions=drop"],
        "br-ex": [
            "priority=1,actions=NORMAL",
            "priority=2,in_port=phy-br-ex,actions=drop",
            "priority=4,in_port=phy-br-ex,dl_vlan=1,actions=strip_vlan,NORMAL",
        ],
        "br-phy": ["priority=0,actions=NORMAL"],
        "br-sh": ["priority=4,arp,actions=drop"],
    }
    missing = FLOWS - len(tun) - sum(len(flows) for flows in whole.values())
    return {"br-tun": [*tun, *(unicast(number) for number in range(missing))], **whole}


def unicast(number: int) -> str:
    """A known instance behind a tunnel: its match, and where it is sent."""
    tag, tunnel = number % len(ROUTERS) + 1, TUNNELS[number % len(TUNNELS)]
    return f"table=20,priority=2,{unicast_match(number)},actions=strip_vlan,set_tunnel:{tag},output:{tunnel}"


def unicast_match(number: int) -> str:
    return f"dl_vlan={number % len(ROUTERS) + 1},dl_dst=fa:16:3e:03:00:{number:02x}"


def fixed(router: str) -> str:
    return f"192.168.{int(router)}.5"


def floating(router: str) -> str:
    return f"203.0.113.{100 + int(router)}"


def _router(router: str) -> dict[str, Any]:
    number = int(router)
    return {
        "links": {
            f"qr-{router}": {
                "type": "ovs",
                "mtu": 1450,
                "addresses": [f"192.168.{number}.1/24", f"fd00:{number}::1/64"],
            },
            f"qg-{router}": {
                "type": "ovs",
                "addresses": [
                    f"203.0.113.{10 + number}/24",
                    {"address": f"{floating(router)}/32", "announce": True},
                ],
            },
        },
        "routes": [
            {"to": "default", "via": "203.0.113.1"},
            {"to": f"172.20.{number}.0/24", "via": f"192.168.{number}.254", "dev": f"qr-{router}"},
            {"to": "default", "via": f"192.168.{number}.253", "table": 100},
        ],
        "rules": [{"from": f"172.21.{number}.0/24", "table": 100, "priority": 1000}],
        "sysctls": {"net.ipv4.ip_forward": 1, f"net.ipv4.conf.qr-{router}.rp_filter": 2},
    }


def _nat(router: str) -> dict[str, Any]:
    number = int(router)
    return {
        "floating_ips": {floating(router): fixed(router)},
        "snat": [{"source": f"192.168.{number}.0/24", "out": f"qg-{router}", "to": f"203.0.113.{10 + number}"}],
        "redirects": [{"destination": "169.254.169.254", "port": 80, "to_port": 9697}],
        "raw": {"filter": {"INPUT": ["-i qg-+ -p tcp --dport 9697 -j DROP"]}},
    }  # fmt: skip


def _host_rules() -> dict[str, Any]:
    return {
        "open_ports": [{"protocol": "tcp", "ports": [873, 3306, 4444, 4567, 4568], "comment": "Galera"}],
        "raw": {"filter": {"FORWARD": ["-i virbr9 -d 10.99.0.0/24 -j ACCEPT"]}},
    }


def _services() -> dict[str, Any]:
    return {
        "plain": {},
        "agent": {"restart_on": [INI]},
        "web": {"checks": [{"tcp": "127.0.0.1:8775"}], "interval": 0.5, "timeout": 1},
        "own": {"unit": _OWN, "enabled": True, "dropins": {"limits": "[Service]\nLimitNOFILE=4096\n"}},
        "dhcp@03": {"enabled": True, "namespace": "qrouter-03"},
        "stopped": {"state": "stopped"},
        "ovs-vswitchd": {},
        "ovsdb-server": {},
    }


_FIREWALL = """
iptables -N alien; iptables -A alien -s 198.18.0.9 -j DROP -c 7 700; iptables -A INPUT -j alien
iptables -A INPUT -i lo -j ACCEPT; iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited
iptables -t nat -A POSTROUTING -s 198.18.0.0/24 ! -d 198.18.0.0/24 -j MASQUERADE -c 3 300
ip6tables -A INPUT -s 2001:db8::9 -j DROP
"""
_FOREIGN = f"""
ovs-vsctl add-br br-alien -- set bridge br-alien datapath_type=netdev fail_mode=standalone other_config:a=b
ovs-vsctl add-port br-alien alien1 -- set interface alien1 type=internal -- set port alien1 tag=7
ovs-vsctl add-port br-int alien2 -- set interface alien2 type=internal external_ids:iface-id=x -- set port alien2 tag=99
ovs-ofctl add-flow br-sh "{ALIEN_FLOW}"
ip netns add alien; ip -n alien link set lo up
ip link add alien0 type veth peer name eth0 netns alien
ip -n alien addr add 198.18.0.2/24 dev eth0; ip -n alien link set eth0 up
ip addr add 198.18.0.1/24 dev alien0; ip link set alien0 up; ip addr add 198.18.1.1/32 dev lo
ip route add 198.19.0.0/16 via 198.18.0.2; ip rule add from 198.18.7.0/24 lookup 77 priority 777
ip addr add 198.18.4.1/24 dev eth0
ip netns exec alien iptables -A INPUT -s 198.18.0.8 -j DROP
printf '# a comment of somebody\\nalien = 1\\n' >>{INI}
printf '198.18.0.2 alien.example\\n' >>/etc/hosts
systemctl start alien
"""
_FOREIGN_INSIDE = """
ip -n $1 addr add 198.18.2.1/32 dev lo
ip -n $1 link add alien3 type veth peer name alien4
ip -n $1 route add 198.18.3.0/24 via 127.0.0.1 dev lo
ip netns exec $1 iptables -t nat -N alien
ip netns exec $1 iptables -t nat -A alien -s 198.18.0.7 -j RETURN -c 5 500
ip netns exec $1 iptables -t nat -A POSTROUTING -j alien
ip netns exec $1 iptables -A FORWARD -s 198.18.0.6 -j DROP
"""


def settle(cluster: Cluster) -> Node:
    """Bring up the first node of the lab: declared, converged, and with the foreign things in place."""
    node = next(iter(cluster.nodes.values()))
    for name, text in UNITS.items():
        node.write(f"/usr/lib/systemd/system/{name}.service", text)
    node.write(INI, "[DEFAULT]\n# keep me\nverbose = True\nexternal_network_bridge = br-ex\n")
    node.sh("mkdir -p /root/www; systemctl daemon-reload" + _FIREWALL)
    service.enable(node, desired(node))
    if not node.eventually(lambda: service.converged(node), within=30):
        raise AssertionError(f"not converged before anything was broken:\n{node.try_run('reconcile', 'status')}")
    node.sh(_FOREIGN)
    for router in SHARED:
        node.run("sh", "-ec", _FOREIGN_INSIDE, "sh", namespace(router))
    if not node.eventually(lambda: service.converged(node), within=30):
        raise AssertionError(f"foreign things disturb it:\n{node.try_run('reconcile', 'status')}")
    return node
