"""From what the sources say to this node's desired state: joins YAML and OpenStack's model, and hands it to the intake.

Inputs come as they like; one task makes the state of what is there, and again when more has come meanwhile. A small
change is composed at once, on the loop; a large one in a thread. While a flood of notifications lasts, the gap between
two states grows, so that it becomes few states. Local VLANs are read from the node before the first model is compiled
and kept from then on; until Open vSwitch says which are in use, nothing of a model is made or taken away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from desired.network.allocations import Allocations, ObservedPort, harvest
from desired.network.build import build
from desired.network.compose import Composed, Composer
from desired.network.model import Model
from desired.resource import Resource, ResourceId, copied
from desired.schema import Loaded, Problem
from reconciler.intake import Intake
from reconciler.logs import get_logger

log = get_logger("cluster")

OPENSTACK = "openstack"
NO_VLANS = "Open vSwitch has not said yet which local VLANs are in use; nothing of the model is made until it does"

POLL = 0.05
"""Seconds until Open vSwitch is looked at again."""

FIRST_GAP, MAX_GAP = 0.05, 2.0
"""Seconds between two states in a flood: doubling, so that one of any length is few states."""

REST = 0.1
"""Seconds between two states at most, while there is no flood."""

CALM = 0.05
"""Seconds without a flood after which it is over: the broker may pause for a moment."""

FEW, QUICK = 20, 0.01
"""So few changed objects are composed on the loop if the last state took no longer, in seconds."""

Observed = Callable[[str], Sequence[ObservedPort] | None]
"""The ports of a bridge of this node as OVSDB has them; None while it is not known."""


class Cluster:
    """Holds the last word of each source. `run` is its one task; `compose` is one round, for `--once`.

    `on_composed` hears how many seconds passed from the first news to the state that has it.
    """

    def __init__(self, node: str, intake: Intake, observed: Observed, on_composed: Callable[[float], None]) -> None:
        self._node = node
        self._composer = Composer(node)
        self._fallback = Composer(node)
        self._good: Loaded | None = None
        """The last YAML that was right, and who composes with it while a newer one is wrong."""
        self._intake = intake
        self._observed = observed
        self._on_composed = on_composed
        self._news = asyncio.Event()
        self._calm = asyncio.Event()
        self._calm.set()
        self._since = 0.0
        self._took = 0.0
        self._gap = 0.0
        self._digest = ""
        self._busy = asyncio.Lock()
        self._files: Loaded | None = None
        self._openstack: Mapping[ResourceId, Resource] = MappingProxyType({})
        self._openstack_problem = ""
        self._changed: set[ResourceId] | None = None
        """What is other in OpenStack's model since the last state; None: anything may be."""
        self._allocations: Allocations | None = None
        self.notices: Sequence[str] = ()
        self.model = Model(MappingProxyType({}))
        self.waits = ""

    @property
    def digest(self) -> str:
        """Which YAML is in the state that was made last."""
        return self._digest

    def take_files(self, loaded: Loaded) -> None:
        """A new state of the YAML, good or not."""
        self._files = loaded
        self._heard()

    def take_openstack(
        self,
        objects: Mapping[ResourceId, Resource],
        problem: str,
        changed: Collection[ResourceId] | None = None,
    ) -> None:
        """What the mirror holds now (a live view will do). `changed` in it since the last time; None: find out.

        `problem`: why nothing may be deleted on its word; empty when it is in sync.
        """
        self._openstack, self._openstack_problem = objects, problem
        if changed is None:
            self._changed = None
        elif self._changed is not None:
            self._changed.update(changed)
        self._heard()

    def flooded(self, *, more: bool) -> None:
        """Whether `more` of OpenStack's notifications are about to come, so that a state is better made later."""
        if more:
            self._calm.clear()
        else:
            self._calm.set()

    def _heard(self) -> None:
        if not self._news.is_set():
            self._since = asyncio.get_running_loop().time()
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
            await self._rest()

    async def _rest(self) -> None:
        """Composing takes half of the time at most, and in a flood ever less of it."""
        loop = asyncio.get_running_loop()
        if self._calm.is_set() and not self._gap:
            await asyncio.sleep(min(self._took, REST))
            return
        self._gap = min(MAX_GAP, max(FIRST_GAP, 2 * self._gap))
        until = loop.time() + self._gap
        while (left := until - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._calm.wait(), left)
            await asyncio.sleep(min(CALM, max(0.0, until - loop.time())))
            if self._calm.is_set():  # for a while: it is over
                self._gap = 0.0
                return

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
        loop = asyncio.get_running_loop()
        began, since = loop.time(), self._since
        composed = await self._held(loaded)
        if composed.loaded.ok:
            self._good = loaded
            self._take(composed)
        else:
            self._take(*await self._despite(composed))
        self._took = loop.time() - began
        self._on_composed(loop.time() - since)
        return True

    async def _held(self, loaded: Loaded) -> Composed:
        """The state of what is there. A defect of ours in making it must not end the daemon: the last state stays.

        What was kept of earlier states may be what is wrong: once more from nothing, then it is a problem like any.
        """
        for again in (True, False):
            try:
                return await self._composed(loaded)
            except Exception as error:  # as of a pass: its journal is this line
                log.exception("compose_crashed", again=again)
                self._composer, crash = Composer(self._node), error
        message = f"internal error in compiling the model, see the log: {crash!r}; the last state stays"
        return Composed(replace(loaded, problems=(Problem(message),)))

    async def _despite(self, wrong: Composed) -> tuple[Composed, Loaded | None]:
        """While the YAML is wrong its last good state stays, and OpenStack is followed all the same."""
        if self._good is None or not self._openstack:
            return wrong, None
        compose = partial(self._fallback.compose, self._good, self.allocations, waiting=bool(self._openstack_problem))
        composed = await asyncio.to_thread(compose, MappingProxyType(copied(self._openstack)))
        return (composed, wrong.loaded) if composed.loaded.ok else (wrong, None)

    async def _composed(self, loaded: Loaded) -> Composed:
        changed, self._changed = self._changed, set()
        compose = partial(
            self._composer.compose,
            loaded,
            self.allocations,
            waiting=bool(self._openstack_problem),
            changed=changed,
        )
        try:
            if changed is not None and len(changed) <= FEW and self._took <= QUICK:
                return compose(self._openstack)
            return await asyncio.to_thread(compose, MappingProxyType(copied(self._openstack)))
        except BaseException:
            self._changed = None
            raise

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

    def _take(self, composed: Composed, despite: Loaded | None = None) -> None:
        if composed.loaded.ok:  # while the YAML is wrong, the last good state is in force, and its model with it
            self.model = composed.model
            if composed.model and self._allocations is not None:
                self._allocations = composed.allocations
        before = set(self.notices)
        for notice in composed.notices:
            if notice not in before:
                log.warning("model_notice", notice=notice)
        self.notices = composed.notices
        self._intake.source(OPENSTACK, self._openstack_problem)
        self._digest = composed.loaded.digest
        step = composed.step if despite is None else None
        self._intake.take(composed.loaded, step, despite=despite)
