"""Requests to look again that came over MQTT. They are triggers: nothing in them is believed, only a selector is read.

Level-triggered like everything else: requests that come faster than one in `LOOK_EVERY` seconds become one look at all
that they asked for, so a flood costs one look a second and none is lost. Garbage is refused with a log line, and a
flood of garbage with one line for all of it. Used by the publisher, which listens.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from reconciler.clock import Clock
from reconciler.doors.words import clean
from reconciler.errors import ConfigError
from reconciler.logs import get_logger

log = get_logger("mqtt")

LOOK_EVERY = 1.0
"""Seconds between two looks at least."""

SPREAD = 0.5
"""Seconds over which nodes that were all asked at once spread their looks."""

SELECTORS = 16
"""Different ones that are kept; more of them are a look at everything."""

LONGEST = 256
"""Bytes of a payload that can be a selector."""

FLOOD = 200
"""Requests in `LOOK_EVERY` seconds that are too many to even read on."""

REFUSED_EVERY = 10.0
"""Seconds between two log lines about garbage at least."""

EVERYTHING = ""


class Looker(Protocol):
    """What a request may do to a node."""

    def check_selector(self, only: str) -> None:
        """Raises ConfigError when `only` is neither KIND nor KIND/NAME of a kind that exists."""
        ...

    def look(self, only: str | None, reason: str) -> None:
        """Ask for passes behind whatever is news."""
        ...


class Looks:
    """Collects requests and carries them out. `run` until cancelled."""

    def __init__(self, node: Looker, clock: Clock) -> None:
        self._node, self._clock = node, clock
        self._wanted: set[str] = set()
        self._spread = False
        self._wake = asyncio.Event()
        self._recent = 0
        self._since = 0.0
        self._refused = 0
        self._told = float("-inf")

    def ask(self, payload: bytes, *, retained: bool, everybody: bool) -> None:
        """One message. `everybody`: all nodes were asked."""
        now = self._clock.now()
        if now - self._since > LOOK_EVERY:
            self._since, self._recent = now, 0
        self._recent += 1
        problem = "it is retained, and would be carried out at every connection" if retained else self._take(payload)
        if problem:
            self._refuse(problem, payload, now)
            return
        self._spread = self._spread or everybody
        self._wake.set()

    def everything(self) -> None:
        """What was asked for is not known any more."""
        self._wanted = {EVERYTHING}
        self._wake.set()

    def flooded(self) -> bool:
        return self._recent > FLOOD

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._spread:
                self._spread = False
                await asyncio.sleep(SPREAD * self._clock.chance())
            wanted, self._wanted = self._wanted, set()
            for selector in [EVERYTHING] if EVERYTHING in wanted else sorted(wanted):
                log.info("look_asked_for", only=selector or "everything")
                self._node.look(selector or None, "asked for over MQTT")
            await asyncio.sleep(LOOK_EVERY)

    def _take(self, payload: bytes) -> str:
        """Why it is refused; "" when it is taken."""
        if len(payload) > LONGEST:
            return f"{len(payload)} bytes are no KIND or KIND/NAME"
        try:
            selector = payload.decode().strip()
        except UnicodeDecodeError:
            return "it is no text"
        if selector:
            try:
                self._node.check_selector(selector)
            except ConfigError as error:
                return str(error)
        self._wanted.add(selector)
        if len(self._wanted) > SELECTORS:
            self._wanted = {EVERYTHING}
        return ""

    def _refuse(self, problem: str, payload: bytes, now: float) -> None:
        self._refused += 1
        if now - self._told >= REFUSED_EVERY:
            shown = clean(payload[:40].decode(errors="replace"))
            log.warning("look_refused", problem=clean(problem[:300]), payload=shown, refused=self._refused)
            self._told, self._refused = now, 0
