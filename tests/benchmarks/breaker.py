"""A seeded random breaker with the tools people have (ovs-vsctl, ovs-ofctl, kill), and how soon all is right again."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.daemon import Daemon, switch
from tests.benchmarks.report import Table, say
from tests.breaking import Deeds, differences
from tests.ovs import PrivateOvs, ToolFailedError

BRIDGES = ("br-int", "br-tun", "br-ex")
PAIRS = 6
TAPS = 12
TUNNELS = 4
FLOWS = 60
GIVE_UP = 60.0

_NODE = """\
bridges: {br-int: {}, br-tun: {}, br-ex: {}}
patches:
@patches
ports:
@ports
flows:
  br-int:
@flows
  br-tun:
    - priority=1,actions=drop
    - priority=2,in_port=pi0,actions=resubmit(,2)
    - table=2,priority=0,actions=output:gre0,output:gre1
  br-ex:
    - priority=0,actions=NORMAL
"""


def _desired() -> str:
    patches = [f"  - {{br-int: pt{n}, {'br-tun' if n % 2 == 0 else 'br-ex'}: pi{n}}}" for n in range(PAIRS)]
    ports = [f"  tap{n}: {{bridge: br-int, tag: {1 + n % 4}}}" for n in range(TAPS)]
    tunnel = "{{bridge: br-tun, type: gre, local_ip: 10.9.0.1, remote_ip: 10.9.0.{0}, key: flow}}"
    ports += [f"  gre{n}: {tunnel.format(n + 2)}" for n in range(TUNNELS)]
    flows = [
        f'    - "table={n % 3},priority={10 + n},ip,nw_dst=10.1.0.{n},actions=mod_vlan_vid:{1 + n},{_out(n)}"'
        for n in range(FLOWS)
    ]
    text = _NODE.replace("@patches", "\n".join(patches)).replace("@ports", "\n".join(ports))
    return text.replace("@flows", "\n".join(flows))


def _out(number: int) -> str:
    return f"output:pt{number % PAIRS}"


class _Breaker:
    """One deed a call, chosen by chance. What a tool refuses (the thing is just gone) is no deed."""

    def __init__(self, ovs: PrivateOvs, chance: random.Random) -> None:
        self._ovs, self._chance = ovs, chance
        deeds: list[tuple[int, str, Callable[[], object]]] = [
            (8, "delete a port", lambda: self._rows("del-port", self._port())),
            (6, "change a tag", lambda: self._rows("set", "port", self._tap(), f"tag={self._number(9, 4000)}")),
            (3, "clear a tag", lambda: self._rows("clear", "port", self._tap(), "tag")),
            (4, "change a peer", lambda: self._rows("set", "interface", self._patch(), "options:peer=nobody")),
            (4, "change a remote_ip", self._redirect),
            (2, "delete a bridge", lambda: self._rows("del-br", self._bridge())),
            (2, "change fail_mode", lambda: self._rows("set", "bridge", self._bridge(), "fail_mode=standalone")),
            (3, "delete all flows", lambda: ovs.ofctl("del-flows", self._bridge())),
            (8, "delete one flow", lambda: ovs.ofctl("del-flows", "br-int", self._match())),
            (8, "change a flow's actions", lambda: ovs.ofctl("mod-flows", "br-int", f"{self._match()},actions=drop")),
            (8, "hijack", self._hijack),
            (1, "kill -9 ovs-vswitchd", self._kill_vswitchd),
            (1, "restart ovs-vswitchd", lambda: ovs.restart_vswitchd(wait=False)),
            (1, "restart ovsdb-server", ovs.restart_ovsdb),
        ]
        self._deeds: Deeds[object] = Deeds(chance, deeds)
        self.done = self._deeds.done

    def one(self) -> None:
        self._deeds.one(ToolFailedError)

    def _rows(self, *words: str) -> None:
        self._ovs.vsctl("--no-wait", *words)

    def _redirect(self) -> None:
        self._rows("set", "interface", self._tunnel(), f"options:remote_ip=10.9.1.{self._number(1, 250)}")

    def _hijack(self) -> None:
        match = f"table=0,priority={self._number(100, 9999)},ip,nw_src=10.2.0.{self._number(0, 250)}"
        self._ovs.ofctl("add-flow", "br-int", f"{match},actions=drop")

    def _number(self, least: int, beyond: int) -> int:
        return self._chance.randrange(least, beyond)

    def _kill_vswitchd(self) -> None:
        self._ovs.stop_vswitchd(signal.SIGKILL)
        time.sleep(self._chance.uniform(0.0, 0.5))
        self._ovs.start_vswitchd(wait=False)

    def _bridge(self) -> str:
        return self._chance.choice(BRIDGES)

    def _tap(self) -> str:
        return f"tap{self._chance.randrange(TAPS)}"

    def _patch(self) -> str:
        return f"{self._chance.choice(('pt', 'pi'))}{self._chance.randrange(PAIRS)}"

    def _tunnel(self) -> str:
        return f"gre{self._chance.randrange(TUNNELS)}"

    def _port(self) -> str:
        return self._chance.choice((self._tap, self._patch, self._tunnel))()

    def _match(self) -> str:
        number = self._chance.randrange(FLOWS)
        return f"table={number % 3},ip,nw_dst=10.1.0.{number}"


def world(ovs: PrivateOvs) -> dict[str, str]:
    """What everybody can see of bridges, ports, interfaces and flows, apart from numbers that come and go."""
    seen = {bridge: ovs.ofctl("--no-stats", "--names", "dump-flows", bridge, timeout=5) for bridge in BRIDGES}
    seen = {bridge: "\n".join(sorted(text.splitlines())) for bridge, text in seen.items()}
    for table, columns in (
        ("bridge", "name,fail_mode,datapath_type,external_ids"),
        ("port", "name,tag,external_ids"),
        ("interface", "name,type,options"),
    ):
        rows = ovs.vsctl("--format=csv", "--no-headings", f"--columns={columns}", "list", table, timeout=5)
        seen[table] = "\n".join(sorted(rows.splitlines()))
    seen["members"] = "\n".join(f"{bridge}: {ovs.vsctl('list-ports', bridge, timeout=5)}" for bridge in BRIDGES)
    return seen


def table(directory: Path, seconds: float, seed: int) -> Table:
    """Break for so many seconds, then wait until the world is what it was before."""
    with switch(directory, "breaker") as ovs:
        daemon = Daemon(ovs)
        daemon.declare(_desired())
        daemon.start()
        daemon.settled()
        daemon.quiet()
        before = world(ovs)
        breaker, chance = _Breaker(ovs, random.Random(seed)), random.Random(seed + 1)
        say(f"random breaker: {seconds:g} s, seed {seed}")
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            breaker.one()
            time.sleep(chance.choice((0.0, 0.01, 0.05, 0.2)))
        ended = time.monotonic()
        right, differs = _until_right(ovs, before, ended)
        with contextlib.suppress(RuntimeError):
            daemon.settled(10.0)
        said, passes = daemon.converged(), daemon.metrics()
        log = daemon.tail()
        daemon.end()
    rows = [[name, str(count)] for name, count in sorted(breaker.done.items())]
    rows.append(["all deeds", str(sum(breaker.done.values()))])
    rows.append(["passes", f"{sum(v for k, v in passes.items() if k.startswith('reconciler_passes_total')):.0f}"])
    rows.append(["end to the world as before", f"{right:.2f} s" if right is not None else f"not in {GIVE_UP:g} s"])
    rows.append(["converged, says the daemon", "yes" if said else "no"])
    notes = [f"seed {seed}, {seconds:g} s. Aim: converged within 5 s.", *differs]
    if differs or not said:
        notes.append(f"the end of the daemon's log:\n{log}")
    return Table("Random breaker", ("what", "value"), rows, notes, {"seed": seed, "seconds": right, **breaker.done})


def _until_right(ovs: PrivateOvs, before: dict[str, str], ended: float) -> tuple[float | None, list[str]]:
    """How long it took, or what still differs."""
    differs: list[str] = []
    while time.monotonic() < ended + GIVE_UP:
        began = time.monotonic()
        try:
            now = world(ovs)
        except ToolFailedError as error:
            differs = [str(error)]
            continue
        if now == before:
            return began - ended, []
        differs = differences(before, now)
        time.sleep(0.05)
    return None, differs
