"""Telling systemd how the daemon is: sd_notify(3), without a library.

Outside systemd (no ``NOTIFY_SOCKET``) every call does nothing. Nothing here runs by itself: the caller feeds the
watchdog when its workers have made progress, never from a timer.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from reconciler.errors import DriverError

SEND_SECONDS = 1.0


class Notifier:
    """Sends to the socket that systemd named; `env` is the process's environment."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        given = os.environ if env is None else env
        self._address = given.get("NOTIFY_SOCKET", "")
        self._watchdog = _watchdog(given)

    def __bool__(self) -> bool:
        """True when somebody listens."""
        return bool(self._address)

    def watchdog_interval(self) -> float | None:
        """Seconds after which systemd gives up on us; None when it does not watch. Feed at half of it."""
        return self._watchdog

    def ready(self, status: str = "") -> None:
        self._send("READY=1", *_status(status))

    def reloading(self, monotonic_usec: int) -> None:
        """SIGHUP is being handled; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_usec}")

    def status(self, sentence: str) -> None:
        """What ``systemctl status`` shows."""
        self._send(*_status(sentence))

    def alive(self) -> None:
        """Feed the watchdog: only when the workers have made progress."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", *_status(status))

    def _send(self, *lines: str) -> None:
        if not (self._address and lines):
            return
        message = "\n".join(lines)
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.settimeout(SEND_SECONDS)
            try:
                out.connect(address)
                out.sendall(message.encode())
            except OSError as error:
                raise DriverError(f"telling systemd {message!r} on {self._address}: {error}") from error


def _status(sentence: str) -> tuple[str, ...]:
    """One line, whatever the sentence holds: a newline would begin another command."""
    return (f"STATUS={' '.join(sentence.split())}",) if sentence else ()


def _watchdog(env: Mapping[str, str]) -> float | None:
    microseconds, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1e6
