"""Each question of a trace is one or two commands of the node's own tools, and the reading of what they print.

Blocking, for the command line. Nothing is written: ofproto/trace runs without `-generate`, and a route is looked up,
not used. What a tool refuses because a thing is not there is an answer; a tool that does not answer is a DriverError.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controllers.drivers import tools
from controllers.drivers.tracing.ofproto import read_switch, read_trace
from desired.network.trace.questions import (
    AskFlows,
    AskInside,
    AskListening,
    AskNeighbour,
    AskRoute,
    AskRules,
    AskSwitch,
    Forwarding,
    Inside,
    Link,
    Question,
    Switch,
    Way,
)
from reconciler.errors import DriverError

NAMED = Path("/run/netns")
_INTERFACE = "_uuid,name,ofport,type,options,external_ids,error"


@dataclass(frozen=True, slots=True)
class Asker:
    """Answers questions about this node. `rundir` has the sockets of Open vSwitch; `timeout` is of one tool."""

    rundir: Path
    database: str
    timeout: float = 5.0

    def answer(self, question: Question[Any]) -> Any:
        """Raises DriverError when a tool is missing or does not answer."""
        found: Any
        match question:
            case AskSwitch():
                found = self._switch()
            case AskFlows(bridge, flow):
                found = self._flows(bridge, flow)
            case AskInside(namespace, version):
                found = self._inside(namespace, version)
            case AskRoute():
                found = self._route(question)
            case AskNeighbour():
                found = self._neighbour(question)
            case AskRules(namespace, version):
                found = self._rules(namespace, version)
            case AskListening(namespace, protocol, port):
                found = self._listens(namespace, protocol, port)
            case _:
                raise AssertionError(f"nobody answers {question}")
        return found

    # -- Open vSwitch -----------------------------------------------------------------------------------------------

    def _switch(self) -> Switch:
        interfaces = self._table("Interface", _INTERFACE)
        ports = self._table("Port", "_uuid,name,tag,interfaces")
        bridges = self._table("Bridge", "_uuid,name,ports")
        return read_switch(interfaces, ports, bridges, self._appctl("dpif/show"))

    def _table(self, table: str, columns: str) -> str:
        wait = f"--timeout={max(1, round(self.timeout))}"
        argv = ["ovs-vsctl", wait, f"--db={self.database}", "--format=json", f"--columns={columns}", "list", table]
        return tools.run(argv, timeout=self.timeout + 1).out

    def _appctl(self, *words: str) -> str:
        wait = f"--timeout={max(1, round(self.timeout))}"
        argv = ["ovs-appctl", wait, "-t", str(self._target()), *words]
        return tools.run(argv, timeout=self.timeout + 1).out

    def _target(self) -> Path:
        """The control socket of ovs-vswitchd. Raises DriverError when it does not run."""
        try:
            pid = (self.rundir / "ovs-vswitchd.pid").read_text().strip()
        except OSError:
            pid = ""
        for name in (f"ovs-vswitchd.{pid}.ctl", "ovs-vswitchd.ctl"):
            if (self.rundir / name).exists():
                return self.rundir / name
        raise DriverError(f"ovs-vswitchd does not run: there is no control socket of it in {self.rundir}")

    def _flows(self, bridge: str, flow: str) -> Forwarding:
        return read_trace(self._appctl("ofproto/trace", bridge, flow))

    # -- namespaces -------------------------------------------------------------------------------------------------

    def _inside(self, namespace: str, version: int) -> Inside:
        if not self._there(namespace):
            return Inside(there=False)
        links = {row["ifname"]: _link(row) for row in self._ip(namespace, "address", "show") if "ifname" in row}
        key = "net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding"
        said = tools.run([*_enter(namespace), "sysctl", "-n", key], timeout=self.timeout, check=False)
        return Inside(there=True, links=links, forwards=said.out.strip() == "1")

    def _there(self, namespace: str) -> bool:
        return not namespace or (NAMED / namespace).exists()

    def _ip(self, namespace: str, *words: str) -> list[dict[str, Any]]:
        said = tools.run(["ip", "-json", *_named(namespace), *words], timeout=self.timeout)
        rows: list[dict[str, Any]] = json.loads(said.out or "[]")
        return rows

    def _route(self, question: AskRoute) -> Way:
        if not self._there(question.namespace):
            return Way(refused=f"namespace {question.namespace} is gone")
        words = [question.to]
        words += ["from", question.source] if question.source else []
        words += ["iif", question.dev] if question.dev else []
        get = ["ip", "-json", *_named(question.namespace), "route", "get"]
        said = tools.run([*get, *words], timeout=self.timeout, check=False)
        if said.code or not said.out.strip():
            return Way(refused=_complaint(said))
        row = json.loads(said.out)[0]
        kind = row.get("type", "unicast")
        if kind not in {"unicast", "local"}:
            return Way(refused=f"its route is {kind}")
        whole = tools.run([*get, "fibmatch", *words], timeout=self.timeout, check=False)
        return Way(
            dev=row.get("dev", ""),
            via=row.get("gateway") or row.get("via", {}).get("host", ""),
            source=row.get("prefsrc", ""),
            local=kind == "local",
            route=_route_text(whole) or f"{question.to} on {row.get('dev', '')}",
        )

    def _neighbour(self, question: AskNeighbour) -> tuple[str, str]:
        if not self._there(question.namespace):
            return "", ""
        for row in self._ip(question.namespace, "neighbour", "show", "to", question.ip, "dev", question.dev):
            return row.get("lladdr", ""), next(iter(row.get("state", [])), "")
        return "", ""

    def _rules(self, namespace: str, version: int) -> str:
        if not self._there(namespace):
            return ""
        tool = "iptables-save" if version == 4 else "ip6tables-save"
        return tools.run([*_enter(namespace), tool], timeout=self.timeout).out

    def _listens(self, namespace: str, protocol: str, port: int) -> bool:
        which = ["-t", "-l"] if protocol == "tcp" else ["-u", "-a"]
        argv = [*_enter(namespace), "ss", "-H", "-n", *which, f"sport = :{port}"]
        return bool(self._there(namespace) and tools.run(argv, timeout=self.timeout).out.strip())


def _named(namespace: str) -> list[str]:
    return ["-n", namespace] if namespace else []


def _enter(namespace: str) -> list[str]:
    return ["ip", "netns", "exec", namespace] if namespace else []


def _link(row: dict[str, Any]) -> Link:
    addresses = tuple(f"{one['local']}/{one['prefixlen']}" for one in row.get("addr_info", ()) if "local" in one)
    return Link(row["ifname"], "UP" in row.get("flags", ()), row.get("address", ""), addresses)


def _complaint(said: tools.Said) -> str:
    words = (said.err.strip() or said.out.strip() or "the kernel has none").splitlines()[0]
    return words.removeprefix("RTNETLINK answers: ")


def _route_text(said: tools.Said) -> str:
    """The route that matched, in the words of ip-route(8)."""
    if said.code or not said.out.strip():
        return ""
    row = json.loads(said.out)[0]
    kind = f"{row['type']} " if row.get("type") else ""
    via = f" via {row['gateway']}" if row.get("gateway") else ""
    return f"{kind}{row.get('dst', '')}{via} dev {row.get('dev', '')}"
