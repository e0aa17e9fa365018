"""The doctor's checks of the systemd unit: will it be there after a boot, is it watched, do namespaces it makes count?

A drop-in that hardens the unit "a little more" (PrivateTmp, ProtectSystem…) gives the daemon a mount namespace of its
own. It runs on without an error, and the network namespaces it makes are usable by nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from controllers.drivers import tools
from reconciler.doors.doctor import TOOL_SECONDS, Check, Examiner, Verdict
from reconciler.doors.session import Session
from reconciler.errors import DriverError

UNIT = "reconciler.service"
_ASKED = ("LoadState", "UnitFileState", "ActiveState", "MainPID", "WatchdogUSec", "Type")


def _service(_session: Session) -> Iterator[Check]:
    if not Path("/run/systemd/system").is_dir():
        yield Check("service", Verdict.SKIPPED, "systemd is not PID 1 here")
        return
    try:
        unit = _properties()
    except DriverError as error:
        yield Check("service", Verdict.WARNING, str(error), "'systemctl status reconciler'")
        return
    if unit.get("LoadState") != "loaded":
        advice = "'sh systemd/install.sh' in a checkout installs it; without it nothing starts the daemon after a boot"
        yield Check("service", Verdict.WARNING, f"{UNIT} is {unit.get('LoadState') or 'not known'}", advice)
        return
    yield _enabled(unit)
    pid = int(unit.get("MainPID") or 0)
    if pid:
        yield _mounts(pid)


def _properties() -> Mapping[str, str]:
    argv = ["systemctl", "show", UNIT, *(f"--property={name}" for name in _ASKED)]
    lines = tools.run(argv, timeout=TOOL_SECONDS).out.splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _enabled(unit: Mapping[str, str]) -> Check:
    detail = f"{unit['UnitFileState']}, {unit['ActiveState']}, watchdog {unit['WatchdogUSec']}"
    if unit["UnitFileState"] not in {"enabled", "enabled-runtime", "linked", "static"}:
        return Check(
            "service", Verdict.WARNING, detail, f"'systemctl enable {UNIT}', or nothing starts it after a boot"
        )
    if unit["WatchdogUSec"] in {"0", "infinity"} or unit["Type"] != "notify":
        return Check("service", Verdict.WARNING, detail, "Type=notify and WatchdogSec= restart a daemon that is stuck")
    return Check("service", Verdict.OK, detail)


def _mounts(pid: int) -> Check:
    try:
        own, init = (Path(f"/proc/{number}/ns/mnt").readlink() for number in (pid, 1))
    except OSError as error:
        return Check("mounts", Verdict.SKIPPED, f"the daemon's mount namespace cannot be seen: {error.strerror}")
    if own == init:
        return Check("mounts", Verdict.OK, "the daemon is in the host's mount namespace")
    detail = "the daemon has a mount namespace of its own: network namespaces it makes are usable by nobody else"
    advice = f"'systemctl cat {UNIT}': take PrivateTmp, ProtectSystem and their like out of its drop-ins"
    return Check("mounts", Verdict.BAD, detail, advice)


EXAMINERS: tuple[Examiner, ...] = (_service,)
