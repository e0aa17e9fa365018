"""The doctor's check of the MQTT broker: does it answer, and does it let us in? Only where one is configured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from reconciler.doors import mqtt_link as link
from reconciler.doors.doctor import Check, Examiner, Verdict
from reconciler.doors.mqtt_format import Topics
from reconciler.doors.session import Session
from reconciler.errors import DriverError
from reconciler.settings_sections import Mqtt
from reconciler.settings_values import MqttBroker, mqtt_broker

_LOCAL = ("localhost", "127.", "::1")


def _mqtt(session: Session) -> Iterator[Check]:
    mqtt = session.settings.mqtt
    if not mqtt.url:
        yield Check("mqtt", Verdict.SKIPPED, "no broker is configured (mqtt.url); only 'reconcile fleet' needs one")
        return
    broker = mqtt_broker(mqtt.url)
    try:
        refused = asyncio.run(_enter(mqtt, session.settings.node))
    except DriverError as error:
        yield Check("mqtt", Verdict.BAD, str(error), _advice(broker))
        return
    if refused:
        yield Check("mqtt", Verdict.WARNING, refused, "repairs and the fleet go on; the node cannot be asked to look")
    elif mqtt.password and not broker.tls and not broker.host.startswith(_LOCAL):
        advice = "use mqtts:// and mqtt.ca: everybody on the way can read the password and speak as this node"
        yield Check("mqtt", Verdict.WARNING, f"{broker} lets us in, without TLS", advice)
    else:
        yield Check("mqtt", Verdict.OK, f"{broker} lets us in")


async def _enter(mqtt: Mqtt, node: str) -> str:
    async with link.connection(mqtt, link.passing(mqtt, "doctor")) as client:
        return await link.subscribe(client, mqtt, Topics(mqtt.prefix).look_at(node))


def _advice(broker: MqttBroker) -> str:
    where = "the password is in /etc/credstore/reconciler.mqtt-password, the user in mqtt.url"
    return f"does {broker.host} run a broker on port {broker.port}? {where}; repairs go on without it"


EXAMINERS: tuple[Examiner, ...] = (_mqtt,)
