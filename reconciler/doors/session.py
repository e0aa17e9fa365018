"""What every verb starts from: the settings, where to print, and who answers for this node.

A verb asks the running daemon; when none holds the node it may do the work in this process, through the composition
root, which is imported only then. Everything heavy is imported where it is used.
"""

from __future__ import annotations

import os
import pwd
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reconciler.doors.client import ANSWER_SECONDS, ControlClient, DaemonAbsentError, DaemonSilentError, lock_holder
from reconciler.doors.options import Output
from reconciler.doors.show import Printer
from reconciler.errors import DriverError
from reconciler.report import OnceResult
from reconciler.settings import DEFAULT_PATH, Settings

if TYPE_CHECKING:
    from desired.network.compose import Composed
    from desired.schema import Loaded
    from desired.store import Store

LOCK_POLL = 0.1
ABSENT_ADVICE = "start it with 'systemctl start reconciler' or 'reconcile run'"


class Root(Protocol):
    """What the doors use of `reconciler.daemon`."""

    @property
    def run_once(self) -> Callable[..., Coroutine[Any, Any, OnceResult]]: ...

    @property
    def open_store(self) -> Callable[[Settings], Store]: ...

    @property
    def compose_desired(self) -> Callable[[Settings, str, Sequence[str]], Composed]: ...

    @property
    def load_desired(self) -> Callable[[Settings, str, Sequence[str]], Loaded]: ...


@dataclass
class Session:
    """One invocation of the command line. `overrides` are the settings given as flags."""

    config: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    as_json: bool = False
    force: bool = False

    def take(self, output: Output | None, *, force: bool = False) -> None:
        """Take over the options that may stand behind a verb too."""
        if output is not None:
            self.as_json = output is Output.JSON
        self.force = self.force or force

    @cached_property
    def settings(self) -> Settings:
        """Raises SettingsError."""
        return Settings.load(self.config or DEFAULT_PATH, overrides=self.overrides)

    @cached_property
    def printer(self) -> Printer:
        return Printer(as_json=self.as_json)

    @cached_property
    def client(self) -> ControlClient:
        return ControlClient(self.settings.control_path, lock=self.settings.lock_path, answer_seconds=ANSWER_SECONDS)

    def daemon(self, purpose: str) -> ControlClient:
        """The client of a daemon that answers. Raises DriverError saying what to do when there is none."""
        try:
            self.client.ping()
        except DaemonAbsentError as error:
            raise DriverError(f"{error}: {purpose} needs the daemon; {ABSENT_ADVICE}") from error
        return self.client

    def daemon_or_none(self, wait: float) -> ControlClient | None:
        """The client of a daemon that answers, or None when nobody holds the node and this process may work on it.

        Somebody who holds the node without listening (a daemon that starts or stops, another ``--once``) is waited
        for, `wait` seconds at most. Raises DriverError naming the pid of who does not answer, unless forced past it.
        """
        told = False
        waited = 0.0
        while True:
            try:
                self.client.ping()
            except DaemonSilentError as error:
                if not self.force:
                    raise DriverError(f"{error}, or go past it with --force") from error
                self.printer.complain(f"{error}; going past it")
                return None
            except DaemonAbsentError:
                holder = lock_holder(self.settings.lock_path)
            else:
                return self.client
            if holder is None or self.force:
                return None
            if waited >= wait:
                raise DriverError(
                    f"pid {holder} holds this node ({self.settings.lock_path}) and does not listen on "
                    f"{self.settings.control_path}; try again later, or go past it with --force"
                )
            if not told:
                self.printer.complain(f"pid {holder} is at work on this node; waiting for it")
                told = True
            threading.Event().wait(LOCK_POLL)
            waited += LOCK_POLL

    def here(self) -> Root:
        """The composition root, for working in this process; its warnings go to standard error."""
        from reconciler import daemon, logs  # noqa: PLC0415 (the engine and its libraries)

        logs.configure("warning", self.settings.log_format)
        return daemon


def now() -> float:
    """Wall-clock seconds."""
    return datetime.now(UTC).timestamp()


def caller() -> str:
    """Who runs this, for the record: the user behind sudo if there is one."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or _account(os.getuid())


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
