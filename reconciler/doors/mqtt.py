"""Tells the MQTT broker how this node stands: its status retained, what it repairs as it happens, a last will.

A `Sink`: `record` puts a pass into a bounded buffer and returns; everything else happens in `run`, which connects,
publishes, listens for requests to look again (`mqtt_looks`), and connects again. The status is a level: only the
newest matters, at most one each `STATUS_EVERY` seconds when it changes, and one each `HEARTBEAT` seconds so that a
stuck daemon can be told from a live one. A broker that is away costs a sentence in `status` and nothing else.
Topics and payloads: ``MQTT.md``. The composition root builds it when the setting `mqtt.url` is not empty.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from reconciler.clock import Clock
from reconciler.contract import PassRecord
from reconciler.doors import mqtt_link as link
from reconciler.doors.mqtt_format import Topics, event_payload, offline, report, report_payload, trimmed
from reconciler.doors.mqtt_link import LastWill
from reconciler.doors.mqtt_looks import Looker, Looks
from reconciler.errors import DriverError
from reconciler.logs import get_logger
from reconciler.report import NodeStatus, Stream
from reconciler.settings import Settings
from reconciler.settings_values import mqtt_broker

if TYPE_CHECKING:
    from aiomqtt import Client

log = get_logger("mqtt")

STATUS_EVERY = 0.2
"""Seconds between two statuses at least."""

HEARTBEAT = 10.0
"""Seconds between two statuses at most."""

POLL = 1.0
"""Seconds after which a change that no pass told of is noticed (a pause, a mistake in the YAML)."""

BUFFERED = 500
"""Passes that wait for the broker; beyond that the oldest are missed, and the next event says how many."""

BATCH = 20
"""Passes that are sent before the status is looked at again."""

FLOOD_PAUSE = 10.0
"""Seconds for which requests to look are not read after a flood of them."""

FAREWELL_SECONDS = 1.0
FIRST_RETRY, LAST_RETRY = 0.5, 30.0

STOPPED = "the daemon was stopped"
BROKE_OFF = "its connection broke off: the daemon, the node or the network between died"


class Watched(Looker, Protocol):
    """What is published, and who is asked to look."""

    def status(self) -> NodeStatus: ...

    def healthy(self) -> tuple[bool, str]: ...

    def stamp(self) -> object:
        """Differs whenever `status` may say something else than before; cheap."""
        ...


class Publisher:
    """One per daemon. `run` until cancelled: it then says that the node is offline and disconnects in good order."""

    def __init__(self, settings: Settings, node: Watched, clock: Clock) -> None:
        self._mqtt, self._name = settings.mqtt, settings.node
        self._node, self._clock = node, clock
        self._topics = Topics(settings.mqtt.prefix)
        self._looks = Looks(node, clock)
        self._events: deque[tuple[PassRecord, int]] = deque()
        self._missed = 0
        self._wake = asyncio.Event()
        self._connected = False
        self._problem = self._deaf = ""
        self._heard: float | None = None
        self._lost = 0

    # -- what the others see ----------------------------------------------------------------------------------------

    def record(self, entry: PassRecord) -> None:
        self._events.append(trimmed(entry))
        if len(self._events) > BUFFERED:
            self._events.popleft()
            self._missed += 1
        self._wake.set()

    def stream(self) -> Stream:
        detail = self._problem or ("" if self._connected else "connecting")
        return Stream("mqtt", self._connected, detail, self._heard, self._lost)

    def notices(self) -> Sequence[str]:
        """Sentences for `status`: what is wrong with the broker."""
        if self._problem:
            return (f"{self._problem}; the fleet does not see this node",)
        return (self._deaf,) if self._deaf else ()

    # -- running ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._looks.run(), name="mqtt-looks")
                group.create_task(self._keep_connected(), name="mqtt-link")
        finally:
            self._connected, self._problem = False, self._problem or "the publisher to the MQTT broker has ended"

    async def _keep_connected(self) -> None:
        delay = FIRST_RETRY
        while True:
            started = self._clock.now()
            try:
                await self._connection()
            except* DriverError as errors:
                self._away(errors)
            if self._clock.now() - started > LAST_RETRY:
                delay = FIRST_RETRY  # it was well for a while
            await asyncio.sleep(delay * (0.5 + self._clock.chance()))
            delay = min(LAST_RETRY, delay * 2)

    def _away(self, errors: BaseExceptionGroup[DriverError]) -> None:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        if self._connected:
            self._lost += 1
        self._connected = False
        if str(first) != self._problem:
            self._problem = str(first)
            log.warning("broker_away", problem=self._problem)

    async def _connection(self) -> None:
        """From connecting to the end of the connection. Raises DriverError, alone or in a group."""
        will = LastWill(self._topics.status(self._name), report_payload(offline(self._name, BROKE_OFF)))
        async with link.connection(self._mqtt, link.identifier(self._mqtt, self._name), will) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._publish(client), name="mqtt-publish")
                    group.create_task(self._listen(client), name="mqtt-listen")
            except asyncio.CancelledError:
                await self._farewell(client)
                raise

    async def _farewell(self, client: Client) -> None:
        """A daemon that is stopped says so itself; when it cannot, the broker's last will says less."""
        payload = report_payload(offline(self._name, STOPPED, now=self._clock.wall()))
        topic = self._topics.status(self._name)
        with contextlib.suppress(DriverError), link.broken(self._mqtt):
            await client.publish(topic, payload, qos=1, retain=True, timeout=FAREWELL_SECONDS)

    # -- publishing -------------------------------------------------------------------------------------------------

    async def _publish(self, client: Client) -> None:
        told: object = None
        at = float("-inf")
        beat = 0.0
        while True:
            stamp, now = self._node.stamp(), self._clock.now()
            if now - at >= (STATUS_EVERY if stamp != told else beat):
                told, at = stamp, now
                beat = HEARTBEAT * (0.8 + 0.2 * self._clock.chance())
                await self._send_status(client)
            await self._send_events(client)
            if self._events:
                continue
            due = at + (STATUS_EVERY if self._node.stamp() != told else beat)
            wait = min(POLL, due - self._clock.now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait)):
                    await self._wake.wait()
            self._wake.clear()

    async def _send_status(self, client: Client) -> None:
        found = report(self._node.status(), self._node.healthy(), now=self._clock.wall(), every=HEARTBEAT)
        await self._send(client, self._topics.status(self._name), report_payload(found), retain=True)
        if not self._connected:
            self._connected, self._problem = True, ""
            log.info("broker_told", broker=str(mqtt_broker(self._mqtt.url)))

    async def _send_events(self, client: Client) -> None:
        """Oldest first. Each leaves the buffer once the broker has it: it may be sent twice, and is not lost."""
        for _ in range(min(BATCH, len(self._events))):
            entry, omitted = first = self._events[0]
            missed = self._missed
            payload = event_payload(self._name, entry, omitted=omitted, missed=missed)
            await self._send(client, self._topics.events(self._name), payload)
            self._missed -= missed
            if self._events[0] is first:
                self._events.popleft()
            else:
                self._missed -= 1  # the buffer ran over meanwhile, and counted what was just sent

    async def _send(self, client: Client, topic: str, payload: str, *, retain: bool = False) -> None:
        with link.broken(self._mqtt):
            await client.publish(topic, payload, qos=1, retain=retain)
        self._heard = self._clock.wall()

    # -- listening --------------------------------------------------------------------------------------------------

    async def _listen(self, client: Client) -> None:
        """Requests to look; and, by the messages' end, that the connection broke off."""
        topics = (self._topics.look, self._topics.look_at(self._name))
        while True:
            refused = [await link.subscribe(client, self._mqtt, topic) for topic in topics]
            self._deaf = next(filter(None, refused), "")
            with link.broken(self._mqtt):
                async for message in client.messages:
                    payload = message.payload if isinstance(message.payload, bytes) else b""
                    everybody = str(message.topic) == self._topics.look
                    self._looks.ask(payload, retained=message.retain, everybody=everybody)
                    if self._looks.flooded():
                        break
                log.warning("look_flood", topics=topics, paused=FLOOD_PAUSE)
                try:
                    await self._let_pass(client, topics)
                finally:
                    self._looks.everything()

    async def _let_pass(self, client: Client, topics: Sequence[str]) -> None:
        """Read no requests for a while; those on their way are thrown away, since a look at everything follows."""
        await client.unsubscribe(list(topics))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLOOD_PAUSE):
                async for _ in client.messages:
                    pass
