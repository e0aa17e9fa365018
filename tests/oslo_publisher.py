"""Publishes notifications with the real `oslo.messaging`: a program for the virtualenv that has it (`.venv-neutron`).

A line on standard input is a JSON object; a line ``ok`` on standard output says that it was sent. Keys: `url`,
`exchange`, `driver` (messaging or messagingv2), `topics`, `event`, `payload`, and `times` for a flood of ports, each
with an id of its own. `tests.oslo` starts it.
"""

import copy
import json
import sys
import uuid

import oslo_messaging
from oslo_config import cfg


class Serializer(oslo_messaging.NoOpSerializer):
    """Contexts here are plain mappings, as Neutron's serializer makes them."""

    def serialize_context(self, context):
        return dict(context)


def notifier(order):
    conf = cfg.ConfigOpts()
    conf([], project="neutron")
    oslo_messaging.set_transport_defaults(order["exchange"])
    transport = oslo_messaging.get_notification_transport(conf, url=order["url"])
    return oslo_messaging.Notifier(
        transport,
        publisher_id="network.controller1",
        driver=order["driver"],
        topics=order["topics"],
        serializer=Serializer(),
    )


def main():
    known = {}
    for line in sys.stdin:
        order = json.loads(line)
        key = tuple(str(order[name]) for name in ("url", "exchange", "driver", "topics"))
        if key not in known:
            known[key] = notifier(order)
        context = {"request_id": "req-1", "user": "admin", "is_admin": True}
        for _ in range(order.get("times", 1)):
            payload = order["payload"]
            if "times" in order:
                payload = copy.deepcopy(payload)
                payload["port"]["id"] = str(uuid.uuid4())
            known[key].info(context, order["event"], payload)
        print("ok", flush=True)


if __name__ == "__main__":
    main()
