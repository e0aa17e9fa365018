"""`reconcile doctor`: is this machine fit for the daemon, and if not, what to do? Read-only, each check by itself.

A check never ends the others: what it cannot find out is its verdict. Tools are run by `controllers.drivers.tools`;
the checks of Open vSwitch are in `doctor_ovs`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from controllers.drivers import tools
from desired.store import StoreError
from reconciler.doors import words
from reconciler.doors.client import DaemonAbsentError, DaemonSilentError, lock_holder
from reconciler.doors.session import Session
from reconciler.doors.show import Line, Lines
from reconciler.doors.stored import opened
from reconciler.errors import DriverError, ReconcilerError
from reconciler.report import ExitCode

TOOL_SECONDS = 5.0
LEAST_FREE_BYTES = 200 * 1024 * 1024
LEAST_FREE_SHARE = 0.03
_CAP_NET_ADMIN = 12
_NOBODY = "doctor: a pause that never was"


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BAD = "bad"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `advice` says what to do when it is not ok; `reach` marks what the daemon cannot work without."""

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""
    reach: bool = False


Examiner = Callable[[Session], Iterator[Check]]

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.BAD: "red", Verdict.SKIPPED: "dim"}


def examine(session: Session) -> Sequence[Check]:
    """All checks. Raises SettingsError when even the settings cannot be read."""
    from reconciler.doors import (  # noqa: PLC0415 (they build on this module)
        doctor_amqp,
        doctor_journal,
        doctor_mqtt,
        doctor_neutron,
        doctor_ovs,
        doctor_service,
    )

    examiners: tuple[Examiner, ...] = (
        _settings, _kernel, _rights, _iptables, *doctor_ovs.EXAMINERS, _desired, _store, _disk, _daemon,
        doctor_amqp.broker, *doctor_neutron.EXAMINERS, *doctor_mqtt.EXAMINERS, *doctor_service.EXAMINERS,
        doctor_journal.journals,
    )  # fmt: skip
    return tuple(check for examiner in examiners for check in _guarded(examiner, session))


def exit_code(checks: Sequence[Check]) -> ExitCode:
    bad = [check for check in checks if check.verdict is Verdict.BAD]
    if any(check.reach for check in bad):
        return ExitCode.UNREACHABLE
    return ExitCode.FAILED if bad else ExitCode.CONVERGED


def lines(checks: Sequence[Check]) -> Lines:
    for check in checks:
        yield Line(f"{check.verdict:8} {check.name:16} {words.clean(check.detail)}", _STYLES[check.verdict])
        if check.advice and check.verdict in {Verdict.BAD, Verdict.WARNING}:
            yield Line(f"{'':25} {words.clean(check.advice)}", "cyan")
    wrong = sum(check.verdict is Verdict.BAD for check in checks)
    doubtful = sum(check.verdict is Verdict.WARNING for check in checks)
    yield Line(f"{len(checks)} checks: {wrong} bad, {doubtful} doubtful", "bold red" if wrong else "bold green")


def _guarded(examiner: Examiner, session: Session) -> Iterator[Check]:
    try:
        yield from examiner(session)
    except DriverError as error:
        yield Check(examiner.__name__.strip("_"), Verdict.BAD, str(error))


def _settings(session: Session) -> Iterator[Check]:
    given = [entry for entry in session.settings.effective() if entry.origin != "default"]
    yield Check("settings", Verdict.OK, f"{len(given)} set, the others are defaults ('reconcile config' shows them)")


def _kernel(_session: Session) -> Iterator[Check]:
    name = os.uname()
    module = Path("/sys/module/openvswitch").is_dir()
    yield Check("kernel", Verdict.OK, f"{name.release} {name.machine}, openvswitch {'' if module else 'not '}loaded")


def _rights(_session: Session) -> Iterator[Check]:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    if int(effective, 16) >> _CAP_NET_ADMIN & 1:
        yield Check("rights", Verdict.OK, f"uid {os.geteuid()} with CAP_NET_ADMIN")
    else:
        yield Check("rights", Verdict.BAD, f"uid {os.geteuid()} without CAP_NET_ADMIN", "run this as root, with sudo")


def _iptables(_session: Session) -> Iterator[Check]:
    if tools.find("iptables") is None:
        yield Check("iptables", Verdict.SKIPPED, "not installed; only nat and filter rules need it")
        return
    version = tools.run(["iptables", "--version"], timeout=TOOL_SECONDS).out.strip()
    if "nf_tables" in version:
        yield Check("iptables", Verdict.OK, f"{version}: changes are heard at once")
    else:
        advice = "changes are only found by polling; 'update-alternatives --config iptables' chooses iptables-nft"
        yield Check("iptables", Verdict.WARNING, version, advice)


def _desired(session: Session) -> Iterator[Check]:
    settings = session.settings
    loaded = session.here().load_desired(settings, settings.node, settings.roles)
    if loaded.problems:
        detail = f"{len(loaded.problems)} mistakes in {settings.desired}; the first: {loaded.problems[0]}"
        yield Check("desired", Verdict.BAD, detail, "'reconcile validate' shows all of them")
    else:
        detail = f"{len(loaded.resources)} resources for node {settings.node}; files read: {loaded.files}"
        yield Check("desired", Verdict.OK, detail)


def _store(session: Session) -> Iterator[Check]:
    shown = session.settings.shown_store_url()
    try:
        with opened(session) as store:
            store.delete_pause(_NOBODY)  # a write that changes nothing, and needs all that a write needs
    except StoreError as error:
        advice = "repairs go on without it; pauses, approvals and the journal are not kept"
        yield Check("store", Verdict.BAD, f"{shown}: {error}", advice)
    else:
        yield Check("store", Verdict.OK, f"{shown} opens and takes writes")


def _disk(session: Session) -> Iterator[Check]:
    wanted = session.settings.state_dir
    place = next(path for path in (wanted, *wanted.parents) if path.exists())
    usage = shutil.disk_usage(place)
    detail = f"{usage.free / 2**20:,.0f} MiB free at {place}"
    if usage.free < LEAST_FREE_BYTES or usage.free < usage.total * LEAST_FREE_SHARE:
        yield Check("disk", Verdict.WARNING, detail, "make room, or lower retention.journal_rows")
    else:
        yield Check("disk", Verdict.OK, detail)


def _daemon(session: Session) -> Iterator[Check]:
    settings = session.settings
    try:
        pid = session.client.ping()
        status = session.client.status()
    except DaemonAbsentError:
        holder = lock_holder(settings.lock_path)
        if holder is None:
            advice = "'systemctl start reconciler', or 'reconcile run'; without it nothing is repaired by itself"
            yield Check("daemon", Verdict.WARNING, "not running", advice)
        else:
            yield Check("daemon", Verdict.WARNING, f"pid {holder} holds {settings.lock_path} and does not listen")
    except DaemonSilentError as error:
        yield Check("daemon", Verdict.BAD, str(error), "'systemctl restart reconciler'; no packet is lost by that")
    except ReconcilerError as error:
        yield Check("daemon", Verdict.BAD, str(error))
    else:
        yield Check("daemon", Verdict.OK, f"pid {pid} answers: {status.outcome}, revision {status.revision or 'none'}")
