"""Following OpenStack in one process: notifications, full reads, the mirror of both, and what `status` says of them.

The parts are in `desired.sources`; here they are joined. What the mirror holds goes to the cluster; only when the model
was read whole once may anything be deleted on its word. With the broker and the API away, the network stands as last
known: the store remembers the mirror. Made by the composition root when a broker or an API is configured.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from desired.network.mirror import Changed, Mirror
from desired.resource import ResourceId
from desired.sources.amqp import AmqpSource, Batch
from desired.sources.following import Following
from desired.sources.neutron import InThread, NeutronSource, Rhythm
from desired.sources.neutron_api import FullRead, NeutronApi
from reconciler.clock import Clock
from reconciler.cluster import Cluster
from reconciler.credentials import NEUTRON_TOKEN, secret
from reconciler.logs import get_logger
from reconciler.report import Stream
from reconciler.settings import Settings
from reconciler.settings_sections import NeutronSettings
from reconciler.writer import StoreWriter

log = get_logger("openstack")

LOOK_AGAIN = 1.0
"""Seconds until a store that was away is looked at again."""

FIRST_DELAY, MOST_DELAY, LONG = 0.5, 30.0, 60.0
"""Seconds until a source that crashed is started again, at first and at most; and after which it counts as well."""

MOST_NOTICES = 10
"""Of objects that are left out, so many are told in `status`; the log has all of them."""


class OpenStack:
    """`run` is its one task. `recall` comes first: the network as last known.

    `on_age` hears how old each notification was, by its sender's clock, when the mirror had taken it.
    """

    def __init__(
        self, settings: Settings, cluster: Cluster, writer: StoreWriter, clock: Clock, on_age: Callable[[float], None]
    ) -> None:
        self._cluster = cluster
        self._on_age = on_age
        self._clock = clock
        self._writer = writer
        amqp = settings.amqp
        self._amqp = AmqpSource(amqp, settings.node, clock=clock, on_gap=self._want_read) if amqp.url else None
        self._following = Following(self._amqp, Mirror(), writer, self._changed, self._want_read)
        self._following.on_taken = self._taken
        self._reads = self._reading(settings.neutron) if settings.neutron.used else None
        self.crashed: dict[str, str] = {}
        """Sources that ended by a defect of ours, in words."""
        self._unknown = "what the store remembers of it was not read yet"
        self._tell()

    async def recall(self) -> None:
        """Start from what the store remembers. A store that cannot tell is said; nothing is deleted until a read."""
        self._unknown = await self._following.recall()
        if self._unknown:
            log.warning("mirror_not_recalled", reason=self._unknown)
        self._tell()

    async def run(self) -> None:
        """Follow, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._amqp is not None:
                group.create_task(self._kept(self._following.run, "notifications"), name="notifications")
            if self._reads is not None:
                group.create_task(self._kept(self._reads.run, "full reads"), name="full-reads")
            group.create_task(self._recall_late(), name="recall-mirror")

    async def _kept(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        """A source that crashed is started again, loudly, ever later: the node is held without it meanwhile."""
        delay = FIRST_DELAY
        while True:
            began = self._clock.now()
            try:
                await work()
            except Exception as error:  # a source must never end the daemon; what happened is this line
                log.exception("source_crashed", source=what, retry_in=delay)
                self.crashed[what] = f"{what}: internal error, see the log: {error!r}; started again"
            delay = FIRST_DELAY if self._clock.now() - began > LONG else min(MOST_DELAY, delay * 2)
            await asyncio.sleep(delay)
            if self._reads is not None:
                self._reads.request()

    async def _recall_late(self) -> None:
        """The store was away at the start: what it remembers is taken over when it is back, where nothing is newer."""
        while self._unknown:
            await asyncio.sleep(LOOK_AGAIN)
            if self._writer.available:
                await self.recall()

    def beside(self) -> Sequence[Heard | Kept]:
        """What `status` shows of each part."""
        heard = [Heard("amqp", self._amqp, self._clock)] if self._amqp is not None else []
        return [*heard, Kept("neutron", self._reads, self._following.mirror, self.crashed)]

    def _reading(self, settings: NeutronSettings) -> NeutronSource:
        api = NeutronApi(settings, token=secret(NEUTRON_TOKEN, os.environ), wall=self._clock.wall)
        rhythm = Rhythm(settings.interval, settings.spread)
        return NeutronSource(
            InThread(api.full_read, settings.patience), clock=self._clock, rhythm=rhythm, taken=self._read
        )

    async def _read(self, found: FullRead) -> None:
        await self._following.read(found.started_at, found.objects)

    def _want_read(self, reason: str) -> None:
        if self._reads is not None:
            log.info("full_read_wanted", reason=reason)
            self._reads.request()

    def _changed(self, changed: Changed) -> None:
        self._tell(changed.resources)

    def _taken(self, batch: Batch) -> None:
        now = self._clock.wall()
        for notice in batch.notices:
            self._on_age(max(0.0, now - notice.at))
        if self._amqp is not None:
            self._cluster.flooded(more=self._amqp.flooded)

    def _tell(self, changed: Collection[ResourceId] | None = None) -> None:
        mirror = self._following.mirror
        self._cluster.take_openstack(mirror.resources, mirror.problem, changed)


@dataclass(frozen=True, slots=True)
class Heard:
    """The notifications, for `status`: is the broker there?"""

    name: str
    source: AmqpSource
    clock: Clock

    def stream(self) -> Stream:
        heard = self.source.last_event
        wall = self.clock.wall() - (self.clock.now() - heard) if heard else None
        return Stream(self.name, self.source.ready, self.source.problem, wall, self.source.lost_count)

    def notices(self) -> Sequence[str]:
        said = [] if self.source.ready else [f"{self.source.problem}; the network stands as last known"]
        return said + [f"{count} messages were no notifications: {what}" for what, count in self.source.garbage.items()]


@dataclass(frozen=True, slots=True)
class Kept:
    """The full reads, for `status`, and what of the model had to be left out, whoever told it."""

    name: str
    reads: NeutronSource | None
    mirror: Mirror
    crashed: Mapping[str, str]

    def stream(self) -> Stream:
        if self.reads is None:
            return Stream(self.name, ready=True, detail="not configured: the model is only followed by notifications")
        last = self.reads.last
        return Stream(self.name, not self.reads.problem, self.reads.problem, None if last is None else last.at)

    def notices(self) -> Sequence[str]:
        said = [f"neutron: {self.reads.problem}"] if self.reads is not None and self.reads.problem else []
        said += self.crashed.values()
        left = list(self.mirror.problems.values())
        said += [f"openstack: {problem}" for problem in left[:MOST_NOTICES]]
        return [*said, f"and {len(left) - MOST_NOTICES} more (in the log)"] if len(left) > MOST_NOTICES else said
