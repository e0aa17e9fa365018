"""What is broken in OVSDB: patch ports, tags, bridges. By raw transactions, seen by a raw monitor."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.benchmarks.wire import NeverSeenError, OvsdbWire
from tests.ovs import PrivateOvs

_BRIDGE = ("name", "fail_mode", "datapath_type", "external_ids", "other_config", "protocols")
_PORT = ("name", "tag", "external_ids")
_INTERFACE = ("name", "type", "options", "external_ids", "ofport_request")
WITHIN = 20.0


class _Ovsdb:
    """Two connections and the rows as they stood when all was well."""

    program = "floor_ovsdb.py"
    share = 1.0
    pause = (0.15, 0.3)
    watch: ClassVar[Mapping[str, tuple[str, ...]]]

    def connect(self, ovs: PrivateOvs) -> None:
        self.path = ovs.rundir / "db.sock"
        self._open()
        self.read()

    def reconnect(self) -> None:
        """ovsdb-server tells those who came after the writer at once, all others in its next turn, vswitchd first.

        A floor program that came last would be at work before vswitchd is, with a core to itself.
        """
        self.close()
        self._open()

    def _open(self) -> None:
        self.breaker, self.watcher = OvsdbWire(self.path), OvsdbWire(self.path)
        self.watcher.monitor(self.watch)

    def close(self) -> None:
        self.breaker.close()
        self.watcher.close()

    def read(self) -> None:
        wire = self.breaker
        self.bridges = {row["name"]: row for row in wire.rows("Bridge", ("_uuid", "ports", *_BRIDGE))}
        self.ports = {row["name"]: row for row in wire.rows("Port", ("_uuid", "interfaces", *_PORT))}
        self.interfaces = {row["name"]: row for row in wire.rows("Interface", ("_uuid", *_INTERFACE))}

    def do(self, *operations: Mapping[str, Any]) -> int:
        self.watcher.drain()
        return self.breaker.send("transact", ["Open_vSwitch", *operations])

    def message(self, name: str, *operations: Mapping[str, Any]) -> str:
        return json.dumps({"method": "transact", "params": ["Open_vSwitch", *operations], "id": name})

    def port_rows(self, name: str) -> list[dict[str, Any]]:
        """Operations that insert the port as it was; the port's uuid-name is ``p_NAME`` in hexadecimal."""
        port, interface, mark = self.ports[name], self.interfaces[name], name.encode().hex()
        return [
            {"op": "insert", "table": "Interface", "uuid-name": f"i_{mark}", "row": _pick(interface, _INTERFACE)},
            {
                "op": "insert", "table": "Port", "uuid-name": f"p_{mark}",
                "row": {**_pick(port, _PORT), "interfaces": ["named-uuid", f"i_{mark}"]},
            },
        ]  # fmt: skip


def _pick(row: Mapping[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    return {column: row[column] for column in columns}


def _into(name: str) -> list[Any]:
    return ["set", [["named-uuid", f"p_{name.encode().hex()}"]]]


class PatchPort(_Ovsdb):
    """One end of one of 20 patch pairs is deleted."""

    title = "patch port, of 40"
    watch: ClassVar = {"Port": ("name",)}
    pairs = 20

    def desired(self) -> str:
        pairs = "\n".join(f"  - {{br-int: pt{n}, br-tun: pi{n}}}" for n in range(self.pairs))
        return f"bridges:\n  br-int: {{}}\n  br-tun: {{}}\npatches:\n{pairs}\n"

    def floor(self) -> tuple[Path, dict[str, Any]]:
        self.read()
        answers = {}
        for name in self.ports:
            if name[:2] in {"pt", "pi"}:
                bridge = "br-int" if name[:2] == "pt" else "br-tun"
                put = {
                    "op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
                    "mutations": [["ports", "insert", _into(name)]],
                }  # fmt: skip
                answers[name] = self.message(name, *self.port_rows(name), put)
        return self.path, _spec("Port", ["name"], "delete", answers)

    def break_one(self, number: int) -> tuple[float, float]:
        name = f"{'pt' if number % 2 else 'pi'}{number // 2 % self.pairs}"
        (found,) = self.breaker.transact(
            {"op": "select", "table": "Port", "where": [["name", "==", name]], "columns": ["_uuid"]}
        )
        where = [["name", "==", "br-int" if name[:2] == "pt" else "br-tun"]]
        mutations = [["ports", "delete", found["rows"][0]["_uuid"]]]
        self.do({"op": "mutate", "table": "Bridge", "where": where, "mutations": mutations})
        seen = 0.0
        for at, _, row in self.watcher.updates():
            if "new" not in row and row["old"]["name"] == name:
                seen = at
            elif "new" in row and row["new"]["name"] == name and seen:
                return seen, at
        raise AssertionError


class Tag(_Ovsdb):
    """The tag of one of 40 internal ports is changed."""

    title = "tag, of 40 ports"
    watch: ClassVar = {"Port": ("name", "tag")}
    ports_made = 40
    wanted = 7

    def desired(self) -> str:
        ports = "\n".join(f"  tap{n}: {{bridge: br-int, tag: {self.wanted}}}" for n in range(self.ports_made))
        return f"bridges:\n  br-int: {{}}\nports:\n{ports}\n"

    def floor(self) -> tuple[Path, dict[str, Any]]:
        self.read()
        answers = {}
        for name, row in self.ports.items():
            if name.startswith("tap"):
                set_tag = self._set(row, self.wanted)
                answers[name] = self.message(name, set_tag)
        return self.path, _spec("Port", ["name", "tag"], "modify", answers, ("tag", self.wanted))

    def _set(self, row: Mapping[str, Any], tag: int) -> dict[str, Any]:
        return {"op": "update", "table": "Port", "where": [["_uuid", "==", row["_uuid"]]], "row": {"tag": tag}}

    def break_one(self, number: int) -> tuple[float, float]:
        name = f"tap{number % self.ports_made}"
        self.do(self._set(self.ports[name], 100 + number % 1000))
        seen = 0.0
        for at, _, row in self.watcher.updates():
            if row["new"]["name"] != name:
                continue
            if row["new"]["tag"] != self.wanted:
                seen = at
            elif seen:
                return seen, at
        raise AssertionError


class Bridge(_Ovsdb):
    """One of 5 bridges with 10 internal ports each is deleted; it is whole when all its ports are there."""

    title = "bridge with 10 ports, of 5"
    watch: ClassVar = {"Bridge": ("name",), "Port": ("name",), "Interface": ("name", "ofport")}
    share = 0.5
    pause = (0.3, 0.5)
    bridges_made = 5
    each = 10

    def desired(self) -> str:
        bridges = "\n".join(f"  br{n}: {{}}" for n in range(self.bridges_made))
        ports = "\n".join(f"  {port}: {{bridge: br{n}}}" for n in range(self.bridges_made) for port in self._of(n))
        return f"bridges:\n{bridges}\nports:\n{ports}\n"

    def _of(self, number: int) -> list[str]:
        return [f"p{number}x{at}" for at in range(self.each)]

    def floor(self) -> tuple[Path, dict[str, Any]]:
        self.read()
        answers = {}
        for number in range(self.bridges_made):
            name = f"br{number}"
            every = [name, *self._of(number)]
            rows = [operation for port in every for operation in self.port_rows(port)]
            refs = ["set", [_into(port)[1][0] for port in every]]
            bridge = {**_pick(self.bridges[name], _BRIDGE), "ports": refs}
            rows += [
                {"op": "insert", "table": "Bridge", "uuid-name": "b", "row": bridge},
                {
                    "op": "mutate", "table": "Open_vSwitch", "where": [],
                    "mutations": [["bridges", "insert", ["set", [["named-uuid", "b"]]]]],
                },
            ]  # fmt: skip
            answers[name] = self.message(name, *rows)
        return self.path, _spec("Bridge", ["name"], "delete", answers)

    def break_one(self, number: int) -> tuple[float, float]:
        name = f"br{number % self.bridges_made}"
        found = self.breaker.transact(
            {"op": "select", "table": "Bridge", "where": [["name", "==", name]], "columns": ["_uuid"]}
        )
        mutations = [["bridges", "delete", found[0]["rows"][0]["_uuid"]]]
        self.do({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": mutations})
        every = {name, *self._of(number % self.bridges_made)}
        missing: set[tuple[str, str]] = set()
        unnumbered = set(every)
        seen = whole = 0.0
        deadline = time.monotonic() + WITHIN
        for at, table, row in self.watcher.updates():
            mentioned = (row.get("new") or row["old"]).get("name", "")
            if mentioned not in every:
                continue
            if "new" not in row:
                missing.add((table, mentioned))
                seen = at if (table, mentioned) == ("Bridge", name) else seen
            else:
                missing.discard((table, mentioned))
                whole = at if seen and not whole and not missing else whole
                if table == "Interface" and isinstance(row["new"]["ofport"], int):
                    unnumbered.discard(mentioned)
            if whole and not unnumbered:  # vswitchd is done with it, too
                return seen, whole
            if at > deadline:
                raise NeverSeenError(f"bridge {name} is not whole: {sorted(missing)}")
        raise AssertionError


def _spec(
    table: str, columns: list[str], select: str, answers: Mapping[str, str], watch: tuple[str, Any] = ("", None)
) -> dict[str, Any]:
    return {"table": table, "columns": columns, "select": select, "watch": watch, "answers": answers}
