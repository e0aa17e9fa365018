"""The doctor's checks of Open vSwitch: are its programs there, do its daemons answer, could we do our work on it?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

from controllers.drivers import tools
from desired.kinds.ovs import SPOKEN
from reconciler.doors.doctor import TOOL_SECONDS, Check, Examiner, Verdict
from reconciler.doors.session import Session
from reconciler.errors import DriverError
from reconciler.settings import Settings

_SHOWN = 5


def _tools(_session: Session) -> Iterator[Check]:
    for tool, use in (("ovs-ofctl", "flows are compiled by it"), ("ovs-vsctl", "people"), ("ovs-appctl", "people")):
        if tools.find(tool) is None:
            verdict = Verdict.BAD if tool == "ovs-ofctl" else Verdict.WARNING
            yield Check(tool, verdict, f"not installed ({use})", "install openvswitch-switch (Debian) or openvswitch")
        else:
            version = tools.run([tool, "--version"], timeout=TOOL_SECONDS).out.splitlines()[0]
            yield Check(tool, Verdict.OK, version)


def _ovsdb(session: Session) -> Iterator[Check]:
    settings = session.settings
    try:
        rows = _table(settings, "Open_vSwitch", "datapath_types,other_config")
    except tools.ToolMissingError as error:
        yield Check("ovsdb", Verdict.SKIPPED, str(error))
        return
    except DriverError as error:
        advice = "'systemctl status ovsdb-server'; another socket is set by ovsdb = \"unix:…\""
        yield Check("ovsdb", Verdict.BAD, str(error), advice, reach=True)
        return
    if not rows:
        advice = "'ovs-vsctl --no-wait init', or restart openvswitch-switch"
        yield Check("ovsdb", Verdict.BAD, f"{settings.ovsdb} answers and is empty", advice, reach=True)
        return
    yield Check("ovsdb", Verdict.OK, f"{settings.ovsdb} answers")
    yield from _root_row(settings, rows[0])
    yield from _bridges(settings)
    yield from _replica(settings)


def _root_row(settings: Settings, row: Mapping[str, Any]) -> Iterator[Check]:
    wanted, known = settings.datapath_type or "system", _set(row["datapath_types"])
    if wanted in known:
        yield Check("datapath", Verdict.OK, f"{wanted} is supported (known here: {', '.join(known)})")
    else:
        other = next(iter(known), "netdev")
        advice = f'load the kernel module openvswitch, or set datapath_type = "{other}" in the settings'
        have = ", ".join(known) or "nothing yet: vswitchd has not filled it in"
        yield Check("datapath", Verdict.BAD, f"{wanted} is not supported here (there is {have})", advice)
    if dict(row["other_config"][1]).get("flow-restore-wait") == "true":
        advice = "when no restore is under way: ovs-vsctl remove Open_vSwitch . other_config flow-restore-wait"
        yield Check("flow-restore", Verdict.BAD, "flow-restore-wait is true: nothing is forwarded", advice)
    else:
        yield Check("flow-restore", Verdict.OK, "flow-restore-wait is not set")


def _vswitchd(session: Session) -> Iterator[Check]:
    rundir = session.settings.ovs_rundir
    sockets = sorted(rundir.glob("ovs-vswitchd*.ctl"))
    pidfile = rundir / "ovs-vswitchd.pid"
    named = rundir / f"ovs-vswitchd.{pidfile.read_text().strip()}.ctl" if pidfile.is_file() else None
    target = named if named in sockets else next(reversed(sockets), None)
    advice = "'systemctl status ovs-vswitchd'; its sockets are looked for in the setting ovs_rundir"
    if target is None:
        yield Check("vswitchd", Verdict.BAD, f"no control socket in {rundir}: it does not run", advice, reach=True)
        return
    try:
        said = tools.run(
            ["ovs-appctl", f"--timeout={TOOL_SECONDS:.0f}", "-t", str(target), "version"], timeout=TOOL_SECONDS + 1
        )
    except DriverError as error:
        yield Check("vswitchd", Verdict.BAD, str(error), advice, reach=not isinstance(error, tools.ToolMissingError))
    else:
        yield Check("vswitchd", Verdict.OK, said.out.splitlines()[0])


def _bridges(settings: Settings) -> Iterator[Check]:
    try:
        rows = _table(settings, "Bridge", "name,protocols")
    except DriverError as error:
        yield Check("bridges", Verdict.SKIPPED, str(error))
        return
    silent = []
    for row in rows:
        target = f"unix:{settings.ovs_rundir}/{row['name']}.mgmt"
        argv = ["ovs-ofctl", f"--timeout={TOOL_SECONDS:.0f}", "-O", SPOKEN, "show", target]
        try:
            tools.run(argv, timeout=TOOL_SECONDS + 1)
        except DriverError as error:
            protocols = _set(row["protocols"])
            locked_out = protocols and SPOKEN not in protocols
            advice = (
                f"ovs-vsctl add Bridge {row['name']} protocols {SPOKEN} (for a bridge that is declared it is our work)"
                if locked_out
                else "see its datapath_type, and 'ovs-vsctl show' for an error"
            )
            silent.append(Check(f"bridge {row['name']}", Verdict.WARNING, str(error), advice))
    yield Check("bridges", Verdict.OK, f"{len(rows) - len(silent)} of {len(rows)} answer in {SPOKEN}")
    yield from silent


def _replica(settings: Settings) -> Iterator[Check]:
    """Our own reading of OVSDB against ovsdbapp's."""
    from controllers.drivers.ovsdb.audit import audit  # noqa: PLC0415 (ovsdbapp)
    from controllers.drivers.ovsdb.client import Ovsdb  # noqa: PLC0415

    async def read() -> Any:
        whole = asyncio.Event()
        driver = Ovsdb(settings.ovsdb, on_change=lambda _names, _why: whole.set(), timeout=TOOL_SECONDS)
        running = asyncio.create_task(driver.run(), name="doctor-ovsdb")
        try:
            async with asyncio.timeout(TOOL_SECONDS):
                await whole.wait()
            return driver.replica.copy()
        except TimeoutError:
            raise DriverError(f"{settings.ovsdb} was not read within {TOOL_SECONDS:g} s: {driver.problem}") from None
        finally:
            running.cancel()
            await asyncio.wait({running}, timeout=TOOL_SECONDS)

    try:
        differences = audit(settings.ovsdb, asyncio.run(read()))
    except DriverError as error:
        yield Check("replica", Verdict.SKIPPED, str(error))
        return
    if differences:
        shown = "; ".join(differences[:_SHOWN])
        advice = "run it again (something may have changed meanwhile); if it stays, it is a defect: report it"
        yield Check(
            "replica", Verdict.WARNING, f"{len(differences)} differences to ovsdbapp's reading: {shown}", advice
        )
    else:
        yield Check("replica", Verdict.OK, "our reading of OVSDB and ovsdbapp's are the same")


EXAMINERS: tuple[Examiner, ...] = (_tools, _vswitchd, _ovsdb)


def _table(settings: Settings, table: str, columns: str) -> list[dict[str, Any]]:
    """Rows of an OVSDB table as ovs-vsctl prints them in JSON. Raises DriverError."""
    where = [f"--db={settings.ovsdb}", f"--timeout={max(1, round(settings.timeouts.ovsdb))}"]
    argv = ["ovs-vsctl", "--no-wait", *where, "--format=json", f"--columns={columns}", "list", table]
    said = tools.run(argv, timeout=settings.timeouts.ovsdb + 1)
    try:
        answer = json.loads(said.out)
        return [dict(zip(answer["headings"], row, strict=True)) for row in answer["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DriverError(f"'{' '.join(argv)}' printed what is not understood: {said.out[:200]!r}") from error


def _set(value: Any) -> list[str]:
    """An OVSDB set: one atom is written bare."""
    return [str(atom) for atom in value[1]] if isinstance(value, list) else [str(value)]
