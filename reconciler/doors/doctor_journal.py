"""`reconcile doctor`, the journals of the units that are held: known lines, what they mean, what was asked already.

Reads the last hour. What the signature wants to know (is the port open, do the credentials log in) is asked at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from pydantic import ValidationError

from controllers.drivers import tools
from controllers.drivers.probes.ask import ask
from controllers.drivers.probes.configured import value_at
from desired.kinds.probe import Probe
from desired.kinds.service import ServiceSpec
from reconciler.doors.doctor import Check, Verdict
from reconciler.doors.session import Session
from reconciler.doors.signatures import Sighting, sightings
from reconciler.errors import DriverError, NotReady

SINCE = "-1h"
LINES = 2000
TOOL_SECONDS = 10.0
ASK_SECONDS = 3.0
_LONGEST = 160


def journals(session: Session) -> Iterator[Check]:
    """One line for each signature seen in the journal of each declared unit; one that says so when there is none."""
    settings = session.settings
    loaded = session.here().load_desired(settings, settings.node, settings.roles)
    units = sorted({resource.spec.name for resource in loaded.resources if isinstance(resource.spec, ServiceSpec)})
    if not units:
        return
    if tools.find("journalctl") is None:
        yield Check("journal", Verdict.SKIPPED, "journalctl is not installed; the logs of units are not read")
        return
    seen = 0
    for unit in units:
        for sighting in sightings(unit, _read(unit)):
            seen += 1
            yield told(meant(sighting), answer)
    if not seen:
        yield Check("journal", Verdict.OK, f"nothing known to be bad in the last hour of {len(units)} units")


def told(sighting: Sighting, asker: Callable[[Probe], str]) -> Check:
    """The sighting as a line of the doctor's."""
    answers = [said for probe in _probes(sighting) if (said := asker(probe))]
    checked = f"; asked now: {'; '.join(answers)}" if answers else ""
    line = sighting.line if len(sighting.line) <= _LONGEST else f"{sighting.line[: _LONGEST - 1]}…"
    detail = f"{sighting.means} (seen {sighting.count} times, last: {line}){checked}"
    return Check(f"log {sighting.signature.name}", Verdict.WARNING, detail, sighting.do)


def meant(sighting: Sighting) -> Sighting:
    """With the host that the configuration of the unit names, if it can be read."""
    for place in sighting.meant:
        try:
            url = urlsplit(value_at(place))
            port = url.port
        except (DriverError, ValueError):
            continue
        if url.hostname:
            host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
            found = {"host": host, "place": f"{host}:{port or (443 if url.scheme == 'https' else 80)}"}
            return replace(sighting, words={**sighting.words, **found})
    return sighting


def answer(probe: Probe) -> str:
    """Ask, and say in words what was answered."""
    try:
        return asyncio.run(ask(probe, ASK_SECONDS)).words
    except NotReady as error:
        return str(error)


def _probes(sighting: Sighting) -> Iterator[Probe]:
    for fields in sighting.asks:
        try:
            yield Probe.model_validate(fields)
        except ValidationError:  # the log line named something that is no host
            continue


def _read(unit: str) -> list[str]:
    argv = ["journalctl", f"--unit={unit}", f"--since={SINCE}", f"--lines={LINES}", "--output=cat", "--no-pager", "-q"]
    return tools.run(argv, timeout=TOOL_SECONDS, check=False).out.splitlines()
