"""A seeded random breaker of a whole node, with the tools that everybody has, and the judge of what becomes of it.

    python -m tests.lab.breaker --seeds 100 --seconds 120 --nodes 2
    python -m tests.lab.breaker --first 17 --seconds 25         # replay seed 17

Each seed has a freshly booted node (``tests/lab/crowd.py``), the shipped unit and the shipped gates. Something is
broken every few hundred milliseconds; after that the node must be as it was before within 5 seconds, foreign things
with it, and the journal must tell of each thing that was broken. The choice of deeds depends on the seed alone.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from reconciler.contract import PassRecord
from reconciler.doors.client import ControlClient
from tests.breaking import Deeds, differences
from tests.lab import crowd, picture, service
from tests.lab.cluster import Node, lab
from tests.lab.crowd import BRIDGES, INI, ROUTERS, SHARED, TUNNELS, namespace
from tests.lab.holder import ToolFailedError, call

WITHIN = 5.0
GIVE_UP = 60.0
GAPS = (0.1, 0.5)
GRACE = 6.0
"""Seconds before a deed in which something else may have broken the same thing, whose repair then is that of both."""
LAST_WORDS = 1.5
"""Seconds before the daemon is killed of which its journal may not tell."""
LEAVE = 3.0
"""Seconds after a mark was taken off in which the daemon is left alive: only one that knew it puts it back."""
WANTS = ("openvswitch-switch.service",)
_MARK = "take off a mark"
_OF_THE_DAEMON = ("kill -9 the daemon", "restart the daemon")
_OWN = tuple(router for router in ROUTERS if router not in SHARED)


@dataclass(frozen=True, slots=True)
class Deed:
    """`script` breaks `resources`: the journal must tell of one of them. None: others put it right, or nothing is."""

    script: str
    resources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """A deed and when it began and ended (wall-clock seconds)."""

    name: str
    deed: Deed
    at: float
    ended: float


@dataclass(slots=True)
class Verdict:
    """What became of one seed. `seconds` None: not within `GIVE_UP`."""

    seed: int
    done: list[Done] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: float | None = None
    held_up: float = 0.0
    """Seconds after the breaking for which the machine stood still."""
    differs: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    repairs: int = 0
    said: str = ""

    @property
    def good(self) -> bool:
        return self.seconds is not None and self.seconds <= WITHIN and not self.unexplained

    def words(self) -> str:
        took = f"as before after {self.seconds:.2f} s" if self.seconds is not None else f"not within {GIVE_UP:g} s"
        if self.held_up > 0.5:
            took += f", and {self.held_up:.1f} s for which the machine stood still"
        lines = [f"seed {self.seed}: {len(self.done)} things broken, {self.repairs} repairs, {took}"]
        lines += [f"  differs: {text}" for text in self.differs]
        lines += [f"  no word in the journal of: {text}" for text in self.unexplained]
        if not self.good:
            last = [f"  {one.at - self.done[-1].at:8.2f}  {one.name}: {one.deed.script}" for one in self.done[-25:]]
            lines += ["  the last deeds, seconds before the end:", *last, self.said]
        return "\n".join(lines)


class Pace:
    """Seconds since it was entered, as an idle machine would count them.

    The kernel makes and ends network namespaces one after the other, for the whole machine: beside somebody who ends
    a thousand, everybody waits for seconds; and twelve processes on two cores are slow. So a little namespace is made
    again and again: time counts for less by as much as that takes longer than usual. `held_up` is what is not counted.
    """

    USUAL = 0.04
    EVERY = 0.1

    def __init__(self, node: Node) -> None:
        self._holder = node.cluster.holder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="pace")
        self._began = time.monotonic()
        self.held_up = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def seconds(self) -> float:
        return time.monotonic() - self._began - self.held_up

    def _measure(self) -> None:
        last = self._began
        while not self._ended.is_set():
            began = time.monotonic()
            call((*self._holder.enter(), "unshare", "-n", "ip", "link", "set", "lo", "up"), timeout=GIVE_UP)
            ended = time.monotonic()
            self.held_up += (ended - last) * (1 - min(1.0, self.USUAL / (ended - began)))
            last = ended
            self._ended.wait(self.EVERY)


class Breaker:
    """One deed a call, chosen by chance."""

    def __init__(self, node: Node, seed: int, only: str = "") -> None:
        self.chance = random.Random(seed)
        self._node = node
        self.done: list[Done] = []
        self.refused = 0
        deeds = [*self._switch(), *self._spaces(), *self._rules(), *self._units()]
        self.deeds: Deeds[Deed] = Deeds(self.chance, [deed for deed in deeds if re.search(only, deed[1])])

    def run(self, seconds: float) -> None:
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            self.one()
            time.sleep(self.chance.uniform(*GAPS))

    def one(self) -> None:
        name, make = self.deeds.choose()
        deed, at = make(), time.time()
        if name in _OF_THE_DAEMON and any(at - one.at < LEAVE and one.name == _MARK for one in self.done):
            self.deeds.done[f"{name}: refused"] += 1  # a port without a mark is a stranger's for one that starts
            return
        try:
            self._node.sh(deed.script, timeout=60)
        except ToolFailedError:  # the thing is just gone, or its tool gets no answer: that is no deed
            self.deeds.done[f"{name}: refused"] += 1
            return
        self.deeds.done[name] += 1
        self.done.append(Done(name, deed, at, time.time()))

    # -- Open vSwitch -----------------------------------------------------------------------------------------------

    def _switch(self) -> list[tuple[int, str, Callable[[], Deed]]]:
        return [
            (6, "delete a port", lambda: self._row("port", self._port(), "del-port {0}")),
            (
                5,
                "change a tag",
                lambda: self._row("port", self._inner(), f"set port {{0}} tag={self._number(21, 4000)}"),
            ),
            (2, "clear a tag", lambda: self._row("port", self._inner(), "clear port {0} tag")),
            (3, "change a remote_ip", self._redirect),
            (3, "change a peer", lambda: self._row("port", self._patch(), "set interface {0} options:peer=nobody")),
            (2, _MARK, lambda: self._row("port", self._port(), "clear port {0} external_ids")),
            (2, "change fail_mode", lambda: self._row("bridge", self._bridge(), "set bridge {0} fail_mode=standalone")),
            (1, "delete br-tun", lambda: self._row("bridge", "br-tun", "del-br {0}")),
            (8, "delete a flow", lambda: self._flow("del-flows br-tun table=20,{0}")),
            (6, "change a flow", lambda: self._flow("mod-flows br-tun table=20,{0},actions=drop")),
            (3, "add a flow", self._hijack),
            (3, "delete all flows", self._flush),
            (1, "kill -9 ovs-vswitchd", lambda: self._kill("ovs-vswitchd")),
            (1, "kill -9 ovsdb-server", lambda: self._kill("ovsdb-server")),
            (1, "restart ovs-vswitchd", lambda: Deed("systemctl restart ovs-vswitchd")),
            (1, "restart Open vSwitch", lambda: Deed("systemctl restart openvswitch-switch")),
        ]

    def _row(self, kind: str, name: str, words: str) -> Deed:
        alive = "systemctl -q is-active reconciler; " if "external_ids" in words else ""
        return Deed(f"{alive}ovs-vsctl --no-wait --timeout=5 {words.format(name)}", (f"{kind}/{name}",))

    def _redirect(self) -> Deed:
        words = f"set interface {{0}} options:remote_ip=10.10.10.{self._number(150, 250)}"
        return self._row("port", self.chance.choice(TUNNELS), words)

    def _flow(self, words: str) -> Deed:
        match = crowd.unicast_match(self._number(0, 100))
        return Deed(f"ovs-ofctl -O OpenFlow14 {words.format(match)}", (f"flow/br-tun/table=20,priority=2,{match}",))

    def _hijack(self) -> Deed:
        bridge = self._bridge()
        match = f"priority={self._number(100, 9999)},ip,nw_src=10.2.0.{self._number(0, 250)}"
        return Deed(f"ovs-ofctl add-flow {bridge} {match},actions=drop", (f"flow/{bridge}/",))

    def _flush(self) -> Deed:
        bridge = self._bridge()
        return Deed(f"ovs-ofctl del-flows {bridge}", (f"flow/{bridge}/",))

    def _kill(self, unit: str) -> Deed:
        # Never `kill -9 $(…)`: process 0, which is what a unit has that does not run, is the whole process group.
        return Deed(f"systemctl kill --kill-who=main -s KILL {unit}")

    # -- namespaces -------------------------------------------------------------------------------------------------

    def _spaces(self) -> list[tuple[int, str, Callable[[], Deed]]]:
        return [
            (6, "delete an address", self._address),
            (3, "flush a device's addresses", lambda: self._link("addr flush dev {0} scope global", "address")),
            (4, "set a link down", lambda: self._link("link set {0} down")),
            (3, "change a mac", lambda: self._link(f"link set {{0}} address fe:16:3e:77:00:{self._number(10, 99)}")),
            (3, "change an mtu", lambda: self._link("link set {0} mtu 1300", kind="link", dev="qr")),
            (4, "delete the default route", lambda: self._in("ip -n {0} route del default", "route/{0}/default")),
            (3, "replace a route", lambda: self._in(
                "ip -n {0} route replace default via 203.0.113.2", "route/{0}/default")),
            (2, "delete a policy rule", self._policy),
            (3, "turn a sysctl", lambda: self._in(
                "ip netns exec {0} sysctl -q net.ipv4.ip_forward=0", "sysctl/{0}/net.ipv4.ip_forward")),
            (2, "move a device to the host", lambda: self._link("link set {0} netns 1")),
            (2, "delete a namespace", lambda: self._own("ip netns del {0}", "namespace/{0}")),
            (2, "make a namespace anew", lambda: self._own("ip netns del {0}; ip netns add {0}", "namespace/{0}")),
            (2, "delete a device", lambda: self._host("ip link del virbr9", "link/host/virbr9")),
            (2, "delete a host address", lambda: self._host(
                "ip addr del 10.99.0.1/24 dev virbr9", "address/host/virbr9/10.99.0.1/24")),
            (2, "delete a host route", lambda: self._host("ip route del 10.98.0.0/16", "route/host/10.98.0.0/16")),
            (2, "turn a host sysctl", lambda: self._host(
                "sysctl -q net.ipv4.conf.all.proxy_arp=0", "sysctl/host/net.ipv4.conf.all.proxy_arp")),
        ]  # fmt: skip

    def _address(self) -> Deed:
        router = self._router()
        address = self.chance.choice((f"{crowd.floating(router)}/32", f"203.0.113.{10 + int(router)}/24"))
        dev, space = f"qg-{router}", namespace(router)
        return Deed(f"ip -n {space} addr del {address} dev {dev}", (f"address/{space}/{dev}/{address}",))

    def _policy(self) -> Deed:
        router = self._router()
        return Deed(f"ip -n {namespace(router)} rule del priority 1000", (f"policy_rule/{namespace(router)}/1000",))

    def _link(self, words: str, kind: str = "link", dev: str = "") -> Deed:
        router = self._router()
        device = f"{dev or self.chance.choice(('qr', 'qg'))}-{router}"
        return Deed(f"ip -n {namespace(router)} {words.format(device)}", (f"{kind}/{namespace(router)}/{device}",))

    def _in(self, script: str, resource: str) -> Deed:
        space = namespace(self._router())
        return Deed(script.format(space), (resource.format(space),))

    def _own(self, script: str, resource: str) -> Deed:
        space = namespace(self.chance.choice(_OWN))
        return Deed(script.format(space), (resource.format(space),))

    def _host(self, script: str, resource: str) -> Deed:
        return Deed(script, (resource,))

    # -- NAT and filter rules ---------------------------------------------------------------------------------------

    def _rules(self) -> list[tuple[int, str, Callable[[], Deed]]]:
        nat = "ip netns exec {0} iptables -w -t nat "
        return [
            (4, "flush the nat table", lambda: self._nat(_OWN, nat + "-F")),
            (4, "delete a jump", lambda: self._nat(ROUTERS, "eval " + nat + _RULE.format("PREROUTING"))),
            (6, "delete a rule", lambda: self._nat(ROUTERS, nat + "-D reconciler-PREROUTING 1")),
            (3, "flush a chain of ours", lambda: self._nat(ROUTERS, nat + "-F reconciler-POSTROUTING")),
            (3, "add to a chain of ours", lambda: self._nat(
                ROUTERS, nat + f"-I reconciler-PREROUTING -s 10.66.0.{self._number(1, 250)} -j ACCEPT")),
            (3, "replace a rule", lambda: self._nat(ROUTERS, nat + "-R reconciler-POSTROUTING 1 -j ACCEPT")),
            (2, "delete a chain of ours", lambda: self._nat(
                _OWN, nat + "-F; " + nat + "-X reconciler-PREROUTING")),
            (3, "delete a host rule", lambda: self._host(
                "iptables -w -D reconciler-INPUT-end 1", "open_port/host/")),
            (2, "move a host jump", lambda: self._host(
                'rule=$(iptables -S INPUT | grep "j reconciler-INPUT-end" | cut -d" " -f3-); test -n "$rule";'
                ' eval iptables -w -D INPUT $rule; eval iptables -w -A INPUT $rule', "open_port/host/")),
            (2, "flush a host chain of ours", lambda: self._host("iptables -w -F reconciler-FORWARD", "rule/host/")),
        ]  # fmt: skip

    def _nat(self, routers: Sequence[str], script: str) -> Deed:
        space = namespace(self.chance.choice(routers))
        kinds = ("floating_ip", "redirect", "snat", "rule")
        return Deed(script.format(space), tuple(f"{kind}/{space}/" for kind in kinds))

    # -- services, files, the daemon itself -------------------------------------------------------------------------

    def _units(self) -> list[tuple[int, str, Callable[[], Deed]]]:
        return [
            (4, "stop a service", lambda: self._service("systemctl stop {0}")),
            (4, "kill -9 a service", self._kill_service),
            (2, "mask a service", lambda: self._service("systemctl mask --now {0}", _PLAIN)),
            (2, "start what is to be stopped", lambda: self._service("systemctl start {0}", ("stopped",))),
            (2, "disable a service", lambda: self._service("systemctl disable {0}", ("dhcp@03",))),
            (2, "edit a unit", lambda: self._service(
                "sed -i s/sleep.*/sleep\\ 7777/ /etc/systemd/system/{0}.service; systemctl daemon-reload", ("own",))),
            (2, "delete a drop-in", lambda: self._service(
                "rm /etc/systemd/system/{0}.service.d/limits.conf; systemctl daemon-reload", ("own",))),
            (4, "edit a key", lambda: self._file(
                f"sed -i 's/^external_network_bridge.*/external_network_bridge = {self._number(1, 99)}/' {INI}", INI)),
            (2, "delete a key", lambda: self._file(f"sed -i '/^gateway_external/d' {INI}", INI)),
            (2, "edit a block", lambda: self._file("sed -i s/controller/wrong/ /etc/hosts", "/etc/hosts")),
            (2, "overwrite a file", lambda: self._file("test -e {0}; echo x >{0}", "/etc/sysctl.d/60-routers.conf")),
            (2, "delete a file", lambda: self._file("rm {0}", "/etc/sysctl.d/60-routers.conf")),
            (2, _OF_THE_DAEMON[0], lambda: self._kill("reconciler")),
            (1, _OF_THE_DAEMON[1], lambda: Deed("systemctl restart reconciler")),
        ]  # fmt: skip

    def _service(self, script: str, names: Sequence[str] = ("plain", "agent", "web", "own", "dhcp@03")) -> Deed:
        name = self.chance.choice(names)
        return Deed(script.format(name), (f"service/{name}.service",))

    def _kill_service(self) -> Deed:
        name = self.chance.choice(("plain", "agent", "web", "own", "dhcp@03"))
        by_systemd = name == "dhcp@03"
        return Deed(self._kill(name).script, () if by_systemd else (f"service/{name}.service",))

    def _file(self, script: str, path: str) -> Deed:
        return Deed(script.format(path), tuple(f"{kind}/{path}" for kind in ("file", "ini", "block")))

    # -- choices ----------------------------------------------------------------------------------------------------

    def _number(self, least: int, beyond: int) -> int:
        return self.chance.randrange(least, beyond)

    def _router(self) -> str:
        return self.chance.choice(ROUTERS)

    def _bridge(self) -> str:
        return self.chance.choice(BRIDGES)

    def _inner(self) -> str:
        return f"qr-{self._router()}"

    def _patch(self) -> str:
        return self.chance.choice(("patch-tun", "patch-int", "int-br-ex", "phy-br-ex"))

    def _port(self) -> str:
        return self.chance.choice((self._inner, lambda: f"qg-{self._router()}", self._patch, self._tunnel))()

    def _tunnel(self) -> str:
        return self.chance.choice(TUNNELS)


_PLAIN = ("plain", "agent", "web")
_RULE = '-D $(ip netns exec {{0}} iptables -w -t nat -S {0} | grep "j reconciler-{0}" | cut -d" " -f3-)'
"""Delete the jump, which is named by its whole text; an empty one is refused."""


# -- one seed --------------------------------------------------------------------------------------------------------


def run(seed: int, seconds: float, only: str = "") -> Verdict:
    """Break a fresh node for so many seconds, and judge. `only`: deeds whose name matches this pattern."""
    verdict = Verdict(seed)
    with lab("breaker", wants=WANTS) as cluster:
        node = crowd.settle(cluster)
        before = picture.take(node)
        breaker, since = Breaker(node, seed, only), time.time()
        breaker.run(seconds)
        stopped_at = time.time()
        verdict.done, verdict.counts = breaker.done, breaker.deeds.done
        with Pace(node) as pace:
            _replace_foreign_flow(node)
            verdict.seconds, verdict.differs = _until_right(node, before, pace)
            verdict.held_up = pace.held_up
        story: Sequence[PassRecord] = ()
        if node.eventually(lambda: service.answers(node), within=30):
            node.eventually(lambda: service.converged(node))
            story = _journal(node, since)
        verdict.repairs = sum(action.result == "done" for entry in story for action in entry.actions)
        verdict.unexplained = _unexplained(breaker.done, story)
        if not verdict.good:
            verdict.said = "\n".join([node.try_run("reconcile", "status", timeout=30), *_told(story, stopped_at)])
    return verdict


def _replace_foreign_flow(node: Node) -> None:
    """Flows of others go with vswitchd, and whoever made them makes them again."""
    node.eventually(lambda: node.run("ovs-ofctl", "add-flow", "br-sh", crowd.ALIEN_FLOW) == "")


def _until_right(node: Node, before: Mapping[str, str], pace: Pace) -> tuple[float | None, list[str]]:
    """Seconds until a picture is like the one before, and what differed shortly before the time was up."""
    late: list[str] = []
    while pace.seconds() < GIVE_UP:
        began = pace.seconds()
        now = picture.take(node)
        differs = differences(before, now)
        if not differs:
            return began, late
        if began > WITHIN - 1.0:
            late = late or [f"{began:.1f} s after the end: {text}" for text in differs]
        time.sleep(0.1)
    return None, differs


def _journal(node: Node, since: float) -> Sequence[PassRecord]:
    client = ControlClient(Path(f"/proc/{node.pid}/root/run/reconciler/control.sock"), answer_seconds=30.0)
    return client.history(resource=None, since=since, limit=10_000)


def _told(story: Sequence[PassRecord], stopped: float) -> list[str]:
    """The end of the journal, a line for each action, with seconds before and after the end of the breaking."""
    lines = [
        f"  {entry.at - stopped:8.2f}  {action.resource}: {action.why} -> {action.result} {action.detail}"
        for entry in reversed(story) for action in entry.actions
    ]  # fmt: skip
    return [line[:200] for line in lines if "flow is missing" not in line][-300:]


def _unexplained(done: Sequence[Done], story: Sequence[PassRecord]) -> list[str]:
    """Deeds of which no line tells. What was broken shortly before already may have been repaired but once."""
    told = [
        (entry.at, str(action.resource))
        for entry in story for action in entry.actions if action.result in {"done", "omitted"}
    ]  # fmt: skip
    sweeping = [
        one for one in done if not one.deed.resources or one.deed.resources[0].startswith(("namespace", "bridge"))
    ]
    silent = []
    for one in done:
        if not one.deed.resources:
            continue
        rivals = [other for other in done if other is not one and set(other.deed.resources) & set(one.deed.resources)]
        overlap = any(0 <= one.at - other.at < GRACE for other in [*rivals, *sweeping])
        lost = any(k.name in _OF_THE_DAEMON and _died_in_silence(one, k, told) for k in done)
        earliest = one.at - (GRACE if overlap else 0.0)
        if not lost and not any(at >= earliest and name.startswith(one.deed.resources) for at, name in told):
            silent.append(f"{one.name}: {one.deed.script}")
    return silent


def _died_in_silence(one: Done, kill: Done, told: Sequence[tuple[float, str]]) -> bool:
    """A daemon that is killed takes along what it has not yet written: the last tenth of a second or so.

    It was not there or only starting when `one` was done, if it has not told of anything since, but for its last words.
    """
    if kill.at - one.at <= -0.1:
        return False
    return not any(one.at <= at < kill.at - LAST_WORDS for at, _ in told)


# -- many seeds ------------------------------------------------------------------------------------------------------


def main() -> int:
    """The number of seeds that failed is the exit code, 99 at most."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.breaker", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first seed; the others follow it")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each is broken")
    parser.add_argument("--nodes", type=int, default=1, help="nodes at the same time")
    parser.add_argument("--only", default="", help="only deeds whose name matches this pattern, such as 'kill|restart'")
    options = parser.parse_args()
    bad: list[int] = []
    slowest = 0.0
    with ThreadPoolExecutor(options.nodes) as pool:
        seeds = range(options.first, options.first + options.seeds)
        for verdict in pool.map(lambda seed: run(seed, options.seconds, options.only), seeds):
            print(verdict.words(), flush=True)
            slowest = max(slowest, verdict.seconds or GIVE_UP)
            if not verdict.good:
                bad.append(verdict.seed)
    print(f"{options.seeds - len(bad)} of {options.seeds} seeds good, the slowest after {slowest:.2f} s")
    if bad:
        print(f"failed: {bad}; replay with --first {bad[0]} --seconds {options.seconds:g}")
    return min(99, len(bad))


if __name__ == "__main__":
    sys.exit(main())
