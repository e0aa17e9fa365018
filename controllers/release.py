"""Letting go of a node: our marks come off what we made, and everything stays where it is and goes on working.

What is released is nobody's afterwards: a daemon that is installed again finds it foreign (a Conflict until it says
`adopt`). Flows first and OVSDB last, since a bridge's mark says whose its flows are: a release that was interrupted is
simply done again. A flow's cookie cannot be changed in place by OpenFlow 1.4; each flow is replaced by itself with
cookie 0, a bridge's in one atomic bundle, so no packet meets a table without it, and its counters begin anew.

Namespaces and links lose alias and group number. Not everything can be let go of: groups and meters have no mark, and
the number on our addresses and routes, our iptables chains and the header of our files are part of what they are.
`reconcile release` (reconciler.doors) calls it and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controllers.drivers import tools
from controllers.drivers.openflow.flows import AddFlow
from controllers.drivers.openflow.switch import Switch
from controllers.drivers.ovsdb import ops
from controllers.drivers.ovsdb.client import Ovsdb
from controllers.ownership import LINK_GROUP, OVSDB_KEY, PEER_GROUP, Owner, alias, is_our_cookie
from reconciler.errors import DriverError

_POLL = 0.005
_GROUPS = frozenset({str(LINK_GROUP), str(PEER_GROUP)})


@dataclass(frozen=True, slots=True)
class Released:
    """What carried our mark and no longer does. `kind` and `name` as in a ResourceId; flows are counted by bridge."""

    kind: str
    name: str
    count: int = 1


async def release(remote: str, rundir: Path, owner: Owner, *, timeout: float) -> Sequence[Released]:
    """Take our marks off Open vSwitch and off namespaces. `remote` and `rundir` are as in the settings.

    `timeout` (seconds) is for each answer.
    Raises DriverError when OVSDB or a bridge does not answer; what was released until then stays so.
    """
    ovsdb = Ovsdb(remote, on_change=_unheard, timeout=timeout)
    async with _running(ovsdb.run(), "release ovsdb"):
        await _until(lambda: ovsdb.ready, lambda: ovsdb.problem, f"OVSDB ({remote})", timeout)
        rows = [*ovsdb.replica.bridges.values(), *ovsdb.replica.ports.values()]
        flows = [
            Released("flow", bridge, count)
            for bridge in sorted(ovsdb.replica.bridges)
            if (count := await _flows(bridge, rundir, timeout))
        ]
        spaces = await asyncio.to_thread(_namespaces, owner, timeout)
        return [*flows, *spaces, *await _rows(ovsdb, owner, rows)]


async def _rows(ovsdb: Ovsdb, owner: Owner, rows: Sequence[Any]) -> Sequence[Released]:
    """Of bridges and ports, in one transaction."""
    marked = [row for row in rows if owner.owns(row.external_ids)]
    tables = {"BridgeRow": ("Bridge", "bridge"), "PortRow": ("Port", "port")}
    operations, released = [], []
    for row in marked:
        table, kind = tables[type(row).__name__]
        operations.append(ops.remove_keys(ops.Row(table, uuid=row.uuid), "external_ids", [OVSDB_KEY]))
        released.append(Released(kind, row.name))
    if operations:
        await ovsdb.transact(operations)
    return sorted(released, key=lambda each: (each.kind, each.name))


def _namespaces(owner: Owner, timeout: float) -> Sequence[Released]:
    """The alias of a namespace's `lo`, and the group number of links, also on the host. A namespace's own goes last."""
    listed = json.loads(tools.run(["ip", "-json", "netns", "list"], timeout=timeout).out or "[]")
    released = []
    for name in [None, *sorted(space["name"] for space in listed)]:
        ip = ["ip", *(("-n", name) if name else ())]
        links = json.loads(tools.run([*ip, "-json", "link", "show"], timeout=timeout).out or "[]")
        for link in links:
            if str(link.get("group")) in _GROUPS:
                tools.run([*ip, "link", "set", "dev", link["ifname"], "group", "default"], timeout=timeout)
                released.append(Released("link", f"{name or 'host'}/{link['ifname']}"))
        if name and any(link["ifname"] == "lo" and link.get("ifalias") == alias(owner) for link in links):
            tools.run([*ip, "link", "set", "dev", "lo", "alias", ""], timeout=timeout)
            released.append(Released("namespace", name))
    return released


async def _flows(bridge: str, rundir: Path, timeout: float) -> int:
    """How many of a bridge's flows were ours."""
    switch = Switch(bridge, rundir, on_change=_unheard, timeout=timeout)
    async with _running(switch.run(), f"release {bridge}"):
        await _until(lambda: switch.ready, lambda: switch.problem, f"bridge {bridge}", timeout)
        ours = [(key, flow) for key, flow in switch.flows.items() if is_our_cookie(flow.cookie)]
        await switch.apply([AddFlow(key, flow._replace(cookie=0)) for key, flow in ours])
        return len(ours)


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _until(ready: Callable[[], bool], problem: Callable[[], str], what: str, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            while not ready():
                await asyncio.sleep(_POLL)
    except TimeoutError as error:
        raise DriverError(f"releasing {what}: {problem()}; nothing of it was changed, try again") from error


def _unheard(_names: object, _why: str) -> None:
    """What others change meanwhile is theirs."""
