"""Proof of many replicas at once, at resync and for `--once`: where nothing can be found, no pass is made.

Every replica is read again, whatever comes of it; what is spared is the pass over a scope that was right when all of it
was last looked at, whose replica has just been proven the same, and for which the same is declared. Whether that is so
the scope's controller says (`Prover`); all other scopes get a pass that proves its replica first. Used by the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from reconciler.book import DesiredBook
from reconciler.clock import Clock
from reconciler.contract import Controller, Outcome, Prover, Scope
from reconciler.errors import ReconcilerError
from reconciler.logs import get_logger
from reconciler.metrics import Metrics
from reconciler.status import StatusBook

log = get_logger("engine")


class Proofs:
    """`statuses` and `book` are the engine's."""

    def __init__(
        self,
        controllers: Mapping[str, Controller],
        *,
        statuses: StatusBook,
        book: DesiredBook,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._provers = {name: each for name, each in controllers.items() if isinstance(each, Prover)}
        self._statuses, self._book = statuses, book
        self._metrics, self._clock = metrics, clock

    async def prove(self, scopes: Collection[Scope], look: Callable[[Collection[Scope]], None]) -> None:
        """Call `look` for every scope over which a pass may find something."""
        many: dict[str, list[Scope]] = {}
        for scope in scopes:
            if scope.controller in self._provers and scope in self._statuses.settled:
                many.setdefault(scope.controller, []).append(scope)
        look(set(scopes).difference(*many.values()))
        async with asyncio.TaskGroup() as group:
            for name, those in many.items():
                group.create_task(self._prove(name, those, look), name=f"prove-{name}")

    async def _prove(self, name: str, scopes: Collection[Scope], look: Callable[[Collection[Scope]], None]) -> None:
        started = self._clock.now()
        same = await self._unchanged(name, scopes) & self._statuses.settled
        seconds = (self._clock.now() - started) / len(scopes)
        for _ in same:
            self._metrics.pass_finished(name, Outcome.CONVERGED, seconds)
        look(set(scopes) - same)

    async def _unchanged(self, name: str, scopes: Collection[Scope]) -> set[Scope]:
        views = [self._book.view(scope, self._statuses.settled) for scope in scopes]
        try:
            return set(await self._provers[name].unchanged(views))
        except ReconcilerError as error:
            log.warning("replicas_not_proven", controller=name, error=str(error), next="a pass over each of them")
        except Exception:  # a defect in a proof must not end the resync: passes prove what it did not
            log.exception("proof_crashed", controller=name)
        return set()
