"""What systemd says of a unit, as far as it is held; and the replica of all units that somebody asked for.

Fed by `bus` with whole properties and with what signals say. Pure.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

UNIT = "org.freedesktop.systemd1.Unit"
SERVICE = "org.freedesktop.systemd1.Service"


@dataclass(frozen=True, slots=True)
class UnitState:
    """One unit. `started` is wall-clock seconds of the start of what runs now, 0 when nothing does."""

    name: str
    load: str = ""
    active: str = ""
    sub: str = ""
    file_state: str = ""
    """enabled, disabled, static, masked, … ; '' when there is no unit file."""
    fragment: str = ""
    dropins: tuple[str, ...] = ()
    need_reload: bool = False
    job: int = 0
    result: str = ""
    restart: str = ""
    type: str = ""
    main_pid: int = 0
    status: int = 0
    """Exit code or signal of the main process, when it has ended."""
    started: float = 0.0
    ended: float = 0.0
    """Wall-clock seconds of the end of the last run, 0 when there was none."""
    code: int = 0
    """How the main process ended: 1 by itself, 2 by a signal, 3 by a signal and with a core."""
    control_group: str = ""
    stopped: bool = False
    """A job of somebody ended it, so that systemd will not restart it."""

    @property
    def killed(self) -> bool:
        """Somebody else ended the last run: by a job, or by a signal that is no crash. An OOM kill is none of these."""
        by_signal = self.code == _CLD_KILLED and self.status in _ORDERS and self.result in {"signal", "success"}
        return self.stopped or by_signal

    @property
    def installed(self) -> bool:
        return self.load not in {"not-found", ""}

    @property
    def runs(self) -> bool:
        return self.active in RUNNING


_CLD_KILLED = 2
_ORDERS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})

RUNNING = frozenset({"active", "reloading", "refreshing"})
UP = RUNNING | {"activating"}

_PLAIN = {
    "LoadState": "load",
    "ActiveState": "active",
    "SubState": "sub",
    "UnitFileState": "file_state",
    "FragmentPath": "fragment",
    "NeedDaemonReload": "need_reload",
    "Result": "result",
    "Restart": "restart",
    "Type": "type",
    "MainPID": "main_pid",
    "ExecMainStatus": "status",
    "ExecMainCode": "code",
    "ControlGroup": "control_group",
}


def fed(unit: UnitState, properties: Mapping[str, Any]) -> UnitState:
    """The unit after these properties (plain values, by systemd's names) became known."""
    known = {field: properties[name] for name, field in _PLAIN.items() if name in properties}
    if properties.get("ActiveState") in UP:
        known["stopped"] = False
    if "DropInPaths" in properties:
        known["dropins"] = tuple(properties["DropInPaths"])
    if "Job" in properties:
        known["job"] = properties["Job"][0]
    if properties.get("InactiveEnterTimestamp"):
        known["ended"] = properties["InactiveEnterTimestamp"] / 1e6
    stamps = [properties[name] for name in ("ExecMainStartTimestamp", "ActiveEnterTimestamp") if properties.get(name)]
    if stamps:
        known["started"] = max(unit.started, *(stamp / 1e6 for stamp in stamps))
    return replace(unit, **known)
