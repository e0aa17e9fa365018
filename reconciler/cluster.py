"""From what the sources say to this node's desired state: joins YAML and OpenStack's model, and hands it to the intake.

Inputs come as they like; one task makes the state of what is there, off the loop, and again when more has come
meanwhile: a flood of notifications becomes few states. Local VLANs are read from the node before the first model is
compiled and kept from then on; until Open vSwitch says which are in use, nothing of a model is made or taken away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from desired.network.allocations import Allocations, ObservedPort, harvest
from desired.network.build import build
from desired.network.compose import Composed, Composer
from desired.network.model import Model
from desired.resource import Resource, ResourceId
from desired.schema import Loaded
from reconciler.intake import Intake
from reconciler.logs import get_logger

log = get_logger("cluster")

OPENSTACK = "openstack"
NO_VLANS = "Open vSwitch has not said yet which local VLANs are in use; nothing of the model is made until it does"

POLL = 0.05
"""Seconds until Open vSwitch is looked at again."""

Observed = Callable[[str], Sequence[ObservedPort] | None]
"""The ports of a bridge of this node as OVSDB has them; None while it is not known."""


class Cluster:
    """Holds the last word of each source. `run` is its one task; `compose` is one round, for `--once`."""

    def __init__(self, node: str, intake: Intake, observed: Observed) -> None:
        self._composer = Composer(node)
        self._intake = intake
        self._observed = observed
        self._news = asyncio.Event()
        self._busy = asyncio.Lock()
        self._files: Loaded | None = None
        self._openstack: Mapping[ResourceId, Resource] = MappingProxyType({})
        self._openstack_problem = ""
        self._allocations: Allocations | None = None
        self.notices: Sequence[str] = ()
        self.model = Model(MappingProxyType({}))
        self.waits = ""

    def take_files(self, loaded: Loaded) -> None:
        """A new state of the YAML, good or not."""
        self._files = loaded
        self._news.set()

    def take_openstack(self, objects: Mapping[ResourceId, Resource], problem: str) -> None:
        """What the mirror holds now. `problem`: why nothing may be deleted on its word; empty when it is in sync."""
        self._openstack, self._openstack_problem = objects, problem
        self._news.set()

    @property
    def allocations(self) -> Allocations:
        return Allocations() if self._allocations is None else self._allocations

    async def run(self) -> None:
        """Compose whenever there is news, for ever."""
        while True:
            await self._news.wait()
            if not await self.compose():
                await asyncio.sleep(POLL)
                self._news.set()

    async def compose(self) -> bool:
        """Make the state of what is there and hand it over. False when the node has not said yet what it must know."""
        async with self._busy:
            return await self._compose()

    async def _compose(self) -> bool:
        if not self._news.is_set():  # another caller has done it meanwhile
            return not self.waits
        self._news.clear()
        loaded = self._files
        if loaded is None:
            return True
        if not loaded.problems and self._allocations is None:
            model = self._composer.model(loaded, self._openstack)
            if model and not await self._harvest(model):
                return False
        self.waits = ""
        composed = await asyncio.to_thread(
            self._composer.compose,
            loaded,
            self.allocations,
            self._openstack,
            waiting=bool(self._openstack_problem),
        )
        self._take(composed)
        return True

    async def _harvest(self, model: Model) -> bool:
        ports = self._observed(model.options.integration_bridge)
        if ports is None:
            if not self.waits:
                self.waits = NO_VLANS
                log.info("model_waits", reason=NO_VLANS)
            return False
        self._allocations = await asyncio.to_thread(lambda: harvest(ports, build(model)))
        log.info("local_vlans_read", vlans=len(self._allocations.vlans))
        return True

    def _take(self, composed: Composed) -> None:
        if composed.loaded.ok and composed.model and self._allocations is not None:
            self._allocations = composed.allocations
        self.model = composed.model
        for notice in composed.notices:
            if notice not in self.notices:
                log.warning("model_notice", notice=notice)
        self.notices = composed.notices
        self._intake.source(OPENSTACK, self._openstack_problem)
        self._intake.take(composed.loaded)
