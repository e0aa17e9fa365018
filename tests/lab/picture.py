"""What everybody can see of a node, by the tools that everybody has: the judge of ``tests/lab/breaker.py``.

It does not ask the daemon. Numbers that come and go (interface indexes, ofports, counters of ours, ages) are left out.
"""

from __future__ import annotations

import re
from collections import Counter

from tests.lab.cluster import Node
from tests.lab.crowd import INI, SERVICES

_SCRIPT = r"""
for br in br-int br-tun br-ex br-phy br-sh; do echo "== flows $br"; ovs-ofctl --no-stats --names dump-flows $br; done
echo "== rows"
ovs-vsctl -f csv --no-headings \
    -- --columns=name,fail_mode,datapath_type,external_ids,other_config,protocols list bridge \
    -- --columns=name,tag,external_ids list port \
    -- --columns=name,type,options,external_ids,error list interface
echo "== members"
for br in br-int br-tun br-ex br-phy br-sh br-alien; do ovs-vsctl list-ports $br | sed "s/^/$br /"; done
echo "== dead ports"
ovs-vsctl -f csv --no-headings --columns=name,ofport find interface ofport=-1
echo "== namespaces"
ls /run/netns
look() { # $1: the namespace, or empty
    in=${1:+-n $1}
    echo "== links $1"; ip $in -o link show
    echo "== addresses $1"; ip $in -o addr show
    echo "== routes $1"; ip $in -4 route show table all; ip $in -6 route show
    echo "== rules $1"; ip $in rule show
}
look ""
for ns in $(ls /run/netns); do look $ns; done
echo "== iptables host"; iptables-save -c; ip6tables-save -c
echo "== sysctls host"; sysctl net.ipv4.ip_forward net.ipv4.conf.all.proxy_arp
for ns in $(ls /run/netns); do
    ip netns exec $ns sh -c "
        echo '== iptables $ns'; iptables-save -c
        echo '== sysctls $ns'; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/qr-*/rp_filter"
done
echo "== units"
for unit in @units; do
    echo $unit $(systemctl show -p LoadState,ActiveState,UnitFileState,NeedDaemonReload,ExecStart,LimitNOFILE $unit)
done
echo "== own units"
grep -s . /etc/systemd/system/own.service /etc/systemd/system/own.service.d/*
echo "== dhcp runs in"
[ "$(stat -Lc %i /proc/$(systemctl show -P MainPID dhcp@03)/ns/net)" = "$(stat -c %i /run/netns/qrouter-03)" ] &&
    echo "its namespace"
echo "== alien unit"
systemctl show -p MainPID,ActiveState alien
echo "== files"
grep . @ini /etc/hosts /etc/sysctl.d/60-routers.conf
true
"""
_BUILT_IN = re.compile(r"^:[A-Z]+ ")
_ANY_MAC = re.compile(r"(br-|ovs-netdev|alien[12])")
"""Devices to which vswitchd gives a MAC of its own choice whenever it makes them."""
_LINK_LOCAL = re.compile(r"\d+: br-phy +inet6 fe80::")


def take(node: Node) -> dict[str, str]:
    """A picture: sorted lines by name of what they are about. Raises ToolFailedError when a tool fails as a whole."""
    script = _SCRIPT.replace("@units", " ".join(SERVICES)).replace("@ini", INI)
    text = node.run("sh", "-c", f"({script}) 2>&1", timeout=60)
    picture: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("== "):
            lines = picture.setdefault(line[3:], [])
        elif line.strip():
            lines.append(line)
    return {about: "\n".join(_plain(about, lines)) for about, lines in picture.items()}


def _plain(about: str, lines: list[str]) -> list[str]:
    match about.split(maxsplit=1)[0]:
        case "links" | "addresses":
            lines = [_without_numbers(line) for line in lines if not _LINK_LOCAL.match(line)]
        case "iptables":
            return _in_order([_rule(line) for line in lines if not line.startswith("#")])
        case "units":
            lines = [re.sub(r" ; start_time=.* }", "", line) for line in lines]
        case "files" | "sysctls":
            return lines
    return sorted(line.strip() for line in lines)


def _without_numbers(line: str) -> str:
    """Of `ip -o`: no index, no number of the other end, no state of duplicate address detection."""
    line = re.sub(r"^\d+: ", "", line)
    if _ANY_MAC.match(line):
        line = line.partition("link/ether")[0]
    line = re.sub(r"@if\d+", "", line)
    line = re.sub(r"link-netns(id)? \S+", "", line)
    return re.sub(r" (tentative|dadfailed|state (UP|UNKNOWN))\b", "", line)


def _in_order(lines: list[str]) -> list[str]:
    """Of rules the order within their chain matters: each gets its number there."""
    counted: Counter[str] = Counter()
    found, table = [], ""
    for line in lines:
        if line.startswith("*"):
            table = line
        rule = line[line.index("-A ") :].split(maxsplit=2) if "-A " in line else []
        if rule:
            counted[table + rule[1]] += 1
        found.append(f"{table} {counted[table + rule[1]] if rule else ''} {line}")
    return found


def _rule(line: str) -> str:
    """Without counters, unless it is a foreign rule whose counters the tests set."""
    if _BUILT_IN.match(line):
        return re.sub(r"\[\d+:\d+\]", "", line)
    return line if "198.18." in line else re.sub(r"\[\d+:\d+\] ?", "", line)
