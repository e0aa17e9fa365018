"""`reconcile fleet`: all nodes at once, from what they tell the MQTT broker. Needs no daemon on this machine.

A terminal gets a table that stays on the screen; everything else the table once and then a line for each change, or
JSON. `--once` takes one picture and exits with the worst node's code. A broker that cannot be reached at first ends
it with 5; one that goes away later is said so, and connected to again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.clock import SystemClock
from reconciler.doors import mqtt_link as link
from reconciler.doors import wire, words
from reconciler.doors.fleet_view import MOST_NODES, Fleet, Row, exit_code, fleet_lines, row_line
from reconciler.doors.mqtt_format import Topics
from reconciler.doors.options import OnlyOption, OutputOption, TimeoutOption
from reconciler.doors.session import Session
from reconciler.doors.show import Line
from reconciler.errors import ConfigError, DriverError
from reconciler.report import ExitCode

if TYPE_CHECKING:
    from aiomqtt import Client
    from rich.console import RenderableType

QUIET = 0.3
"""Seconds without a message after which all that stood retained has come."""

LOOKED = 3.0
"""Seconds that nodes are given to look again before a picture is taken."""

TICK = 1.0
REDRAW = 0.1
FIRST_RETRY, LAST_RETRY = 0.5, 10.0
QUEUED = 100_000

NodesArgument = Annotated[list[str] | None, typer.Argument(metavar="[NODE]...", help="Only these; all if none.")]


def fleet(  # noqa: PLR0913 (each is an option)
    ctx: typer.Context,
    nodes: NodesArgument = None,
    once: Annotated[bool, typer.Option("--once", help="Take one picture, then end.")] = False,  # noqa: FBT002
    timeout: TimeoutOption = "5",  # type: ignore[assignment]  # its parser makes a float of it
    look: Annotated[bool, typer.Option("--look", help="Ask the nodes to look again first.")] = False,  # noqa: FBT002
    only: OnlyOption = None,
    forget: Annotated[bool, typer.Option("--forget", help="Take the named nodes off: they are gone for good.")] = False,  # noqa: FBT002
    output: OutputOption = None,
) -> int:
    """Show how all nodes stand.

    Live, until Ctrl-C, from the MQTT broker of the setting mqtt.url: a table that stays on a terminal; elsewhere the
    table and then a line for each change, with --output json one node a line. --timeout: how long the broker may take.

    Exit code with --once: that of the worst node; 5 when one is offline or silent, or the broker does not answer.

    Example: reconcile fleet --once --output json
    """
    session: Session = ctx.obj
    session.take(output)
    if not session.settings.mqtt.url:
        raise ConfigError("no broker is configured; set mqtt.url, as in mqtt://user@broker.example.org:1883")
    if only and not look:
        raise typer.BadParameter("--only belongs to --look", ctx)
    if forget and not nodes:
        raise typer.BadParameter("--forget needs the names of the nodes", ctx)
    viewer = _Viewer(session, tuple(dict.fromkeys(nodes or ())), timeout)
    if forget:
        return asyncio.run(viewer.forget())
    return asyncio.run(viewer.show(once=once, look=look, only=only or ""))


@dataclass(slots=True)
class _Viewer:
    """One run of the verb."""

    session: Session
    nodes: Sequence[str]
    timeout: float
    seen: Fleet = field(default_factory=Fleet)
    clock: SystemClock = field(default_factory=SystemClock)
    problem: str = ""
    _heard: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: asyncio.Event = field(default_factory=asyncio.Event)

    async def forget(self) -> int:
        """Take the retained status of the named nodes off the broker."""
        topics = self._topics()
        async with self._connection() as client:
            for node in self.nodes:
                await self._publish(client, topics.status(node), "", retain=True)
                self.session.printer.line(Line(f"{words.clean(node)} is forgotten; it comes back if it still speaks"))
        return ExitCode.CONVERGED

    async def show(self, *, once: bool, look: bool, only: str) -> int:
        if look:
            await self._ask(only)
            await asyncio.sleep(LOOKED if once else 0.0)
        listener = asyncio.create_task(self._keep_listening(), name="fleet-listen")
        tasks = [listener]
        try:
            await self._settled(listener)
            if not (once or listener.done()):
                tasks.append(asyncio.create_task(self._live(), name="fleet-show"))
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        rows = self._rows()
        self._answer(rows)
        return exit_code(rows)

    # -- the broker -------------------------------------------------------------------------------------------------

    def _topics(self) -> Topics:
        return Topics(self.session.settings.mqtt.prefix)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Client]:
        mqtt = self.session.settings.mqtt
        async with link.connection(mqtt, link.passing(mqtt, "fleet"), queued=QUEUED, patience=self.timeout) as client:
            yield client

    async def _publish(self, client: Client, topic: str, payload: str, *, retain: bool = False) -> None:
        with link.broken(self.session.settings.mqtt):
            await client.publish(topic, payload, qos=1, retain=retain)

    async def _ask(self, only: str) -> None:
        topics = self._topics()
        async with self._connection() as client:
            for topic in [topics.look_at(node) for node in self.nodes] or [topics.look]:
                await self._publish(client, topic, only)
        whom = ", ".join(self.nodes) or "all nodes"
        self.session.printer.complain(f"asked {whom} to look again{f' at {only}' if only else ''}")

    async def _keep_listening(self) -> None:
        """The first connection must succeed; later ones are tried for as long as it takes."""
        delay = FIRST_RETRY
        while True:
            try:
                await self._listen()
            except DriverError as error:
                if not self._listening.is_set():
                    raise
                if not self.problem:
                    delay = FIRST_RETRY
                self.problem = str(error)
                self._heard.set()
            await asyncio.sleep(delay * (0.5 + self.clock.chance()))
            delay = min(LAST_RETRY, delay * 2)

    async def _listen(self) -> None:
        mqtt, topics = self.session.settings.mqtt, self._topics()
        async with self._connection() as client:
            # The second answer comes behind all that the first subscription found retained.
            for topic in (topics.every_status, topics.look_at("-")):
                refused = await link.subscribe(client, mqtt, topic)
                if refused:
                    raise DriverError(refused)
            self._listening.set()
            self.problem = ""
            with link.broken(mqtt):
                async for message in client.messages:
                    payload = message.payload if isinstance(message.payload, bytes) else b""
                    node = topics.node_of(str(message.topic))
                    if node:
                        self.seen.take(node, payload, retained=message.retain, now=self.clock.now())
                        self._heard.set()

    async def _settled(self, listener: asyncio.Task[None]) -> None:
        """Wait until all that stood retained has come, or the listener has failed."""
        waiting = asyncio.create_task(self._listening.wait(), name="fleet-settled")
        await asyncio.wait({waiting, listener}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        while not listener.done():
            self._heard.clear()
            try:
                async with asyncio.timeout(QUIET):
                    await self._heard.wait()
            except TimeoutError:
                return

    # -- what is shown ----------------------------------------------------------------------------------------------

    def _rows(self) -> Sequence[Row]:
        return self.seen.rows(self.clock.now(), self.clock.wall(), self.nodes)

    def _lines(self, rows: Sequence[Row]) -> list[Line]:
        found = list(fleet_lines(rows, self.clock.wall(), prefix=self.session.settings.mqtt.prefix))
        if self.seen.left_out:
            found.append(Line(f"more nodes than {MOST_NODES}: {self.seen.left_out} messages were left out", "bold red"))
        if self.problem:
            found.append(Line(f"{words.clean(self.problem)}; shown as last heard", "bold yellow"))
        return found

    def _answer(self, rows: Sequence[Row]) -> None:
        self.session.printer.answer(rows, self._lines(rows), Sequence[Row])

    async def _live(self) -> None:
        """Until cancelled."""
        if not self.session.as_json and sys.stdout.isatty():
            await self._on_screen()
        elif self.session.as_json:
            await self._changes(lambda row: Line(wire.dumps(row)))
        else:
            self._answer(self._rows())
            told = {row.node: row.news for row in self._rows()}
            await self._changes(lambda row: row_line(row, words.clock(self.clock.wall())), told)

    async def _changes(self, line: Callable[[Row], Line], told: dict[str, Row] | None = None) -> None:
        """A line for each node whose state is another than before."""
        told = {} if told is None else told
        complained = ""
        while True:
            for row in self._rows():
                if told.get(row.node) != row.news:
                    told[row.node] = row.news
                    self.session.printer.line(line(row))
            for gone in told.keys() - self.seen.nodes.keys() - set(self.nodes):
                del told[gone]
            if self.problem != complained:
                complained = self.problem
                self.session.printer.complain(complained or "the MQTT broker answers again")
            await self._news()

    async def _on_screen(self) -> None:
        from rich.live import Live  # noqa: PLC0415 (heavy, and only for terminals)

        with Live(self._screen(), auto_refresh=False) as live:
            while True:
                await self._news()
                live.update(self._screen(), refresh=True)

    def _screen(self) -> RenderableType:
        from rich.text import Text  # noqa: PLC0415

        text = Text(no_wrap=True, overflow="ellipsis", end="")
        for number, line in enumerate(self._lines(self._rows())):
            text.append("\n" * bool(number) + line.text, style=line.style)
        return text

    async def _news(self) -> None:
        """Wait until something was heard, or a second has passed (ages grow, silence becomes stale)."""
        await asyncio.sleep(REDRAW)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK):
                await self._heard.wait()
        self._heard.clear()
