"""The doctor's check of OpenStack's broker: does it answer, let us in, and have the exchange that Neutron publishes to?

Read-only: the node's queue is neither made nor consumed. Called by `reconciler.doors.doctor`.
"""

from __future__ import annotations

from collections.abc import Iterator

from desired.sources.amqp_queue import exchanges
from desired.sources.broker import Place, RefusedError, Wire, places
from reconciler.doors.doctor import Check, Verdict
from reconciler.doors.session import Session
from reconciler.errors import ConfigError
from reconciler.settings_sections import AmqpSettings


def broker(session: Session) -> Iterator[Check]:
    """One line for each broker of the URL."""
    settings = session.settings.amqp
    if not settings.url:
        yield Check("amqp", Verdict.SKIPPED, "amqp.url is not set: OpenStack's notifications are not followed")
        return
    try:
        found = places(settings.url)
    except ConfigError as error:
        yield Check("amqp", Verdict.BAD, str(error))
        return
    for place in found:
        yield _one(place, settings)


def _one(place: Place, settings: AmqpSettings) -> Check:
    wire: Wire | None = None
    try:
        wire = Wire(place, settings, "reconcile doctor")
        there = exchanges(wire, settings)
    except RefusedError as error:
        advice = "compare amqp.url and the credential reconciler.amqp-password with Neutron's transport_url"
        return Check("amqp", Verdict.BAD, str(error), advice)
    finally:
        if wire is not None:
            wire.close()
    who = f"{place} lets user {place.user!r} into vhost {place.vhost!r}"
    if there:
        return Check("amqp", Verdict.OK, f"{who}; exchanges that are there: {', '.join(there)}")
    advice = (
        "Neutron makes it with its first notification (oslo_messaging_notifications driver = messagingv2); "
        "amqp.exchanges must name its control_exchange"
    )
    return Check("amqp", Verdict.WARNING, f"{who}, and has no exchange {' nor '.join(settings.exchanges)}", advice)
