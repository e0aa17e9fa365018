"""Asks the checks of services again and again, and tells when the answer has changed. One task for each unit.

A unit that has just started is asked often, until it works; then every `interval`; a failing one at least every second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from controllers.drivers.probes.ask import Answer, Asker, ask
from controllers.services.state import Health
from desired.kinds.service import ServiceSpec
from reconciler.errors import NotReady

SOON = 0.05
"""Seconds between the first questions to a unit that has just started; doubled up to a second."""


@dataclass(slots=True)
class _Patient:
    spec: ServiceSpec
    started: float = 0.0
    """Of the present run of the unit; 0 while it does not run."""
    health: Health = field(default_factory=Health)
    poked: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Healths:
    """`on_change(name)` is called when the verdict on a unit is another one."""

    def __init__(self, on_change: Callable[[str], None], asker: Asker = ask) -> None:
        self._on_change = on_change
        self._ask = asker
        self._patients: dict[str, _Patient] = {}
        self._group: asyncio.TaskGroup | None = None

    def open(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        for name, patient in self._patients.items():
            self._run(name, patient)

    def close(self) -> None:
        self._group = None
        for patient in self._patients.values():
            self._end(patient)

    def follow(self, name: str, spec: ServiceSpec, started: float) -> Health:
        """What is known of a unit that runs since `started` (0: it does not). Questions go on from here."""
        patient = self._patients.get(name)
        if patient is None:
            patient = self._patients[name] = _Patient(spec)
            self._run(name, patient)
        if patient.spec != spec or patient.started != started:
            if patient.started != started or patient.spec.checks != spec.checks:
                patient.health = Health()
            patient.spec, patient.started = spec, started
            patient.poked.set()
        return patient.health

    def forget(self, name: str) -> None:
        patient = self._patients.pop(name, None)
        if patient is not None:
            self._end(patient)

    def _run(self, name: str, patient: _Patient) -> None:
        if self._group is not None and patient.task is None:
            patient.task = self._group.create_task(self._attend(name, patient), name=f"health-{name}")

    @staticmethod
    def _end(patient: _Patient) -> None:
        if patient.task is not None:
            patient.task.cancel()
            patient.task = None

    async def _attend(self, name: str, patient: _Patient) -> None:
        soon = SOON
        while True:
            patient.poked.clear()
            if not patient.started:
                await patient.poked.wait()
                soon = SOON
                continue
            started = patient.started
            found = await self._examine(patient.spec)
            if patient.started != started:
                soon = SOON
                continue  # answered by another run
            before = patient.health
            if found is not None:
                failed = 0 if found.ok else before.failed + 1
                patient.health = Health(found.ok, found.words, failed, before.passed or found.ok)
                if (before.ok, min(before.failed, patient.spec.failures)) != (
                    found.ok,
                    min(failed, patient.spec.failures),
                ):
                    self._on_change(name)
            wait = patient.spec.interval if patient.health.ok else min(patient.spec.interval, soon)
            soon = min(1.0, soon * 2)
            try:
                async with asyncio.timeout(wait):
                    await patient.poked.wait()
            except TimeoutError:
                continue
            soon = SOON

    async def _examine(self, spec: ServiceSpec) -> Answer | None:
        """The first bad answer, or the last good one; None when something could not even be asked."""
        last: Answer | None = None
        for probe in spec.checks:
            try:
                last = await self._ask(probe, spec.timeout)
            except NotReady:  # a namespace is missing, a password unknown: no fault of the unit
                return None
            if not last.ok:
                return last
        return last
