"""The floor for a notification: a program that consumes it and sends the flow of its port directly.

``python floor_notify.py SOCKET SPEC.json`` with ``{"url", "exchange", "hello", "flow", "mac"}``: `flow` is the message
that adds the flow of one port, whose MAC address (`mac`, both in hexadecimal) is replaced by that of the notification.
No mirror, no model, no other flow, no gates, no verification, no journal. It prints "ready" when it listens.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import kombu


def main() -> None:
    path, file = sys.argv[1:]
    spec = json.loads(Path(file).read_text())
    flow, mac = bytes.fromhex(spec["flow"]), bytes.fromhex(spec["mac"])
    switch = socket.socket(socket.AF_UNIX)
    switch.connect(path)
    switch.sendall(bytes.fromhex(spec["hello"]))

    def take(raw: Any) -> None:
        said = json.loads(json.loads(raw.body)["oslo.message"])
        if said["event_type"] == "port.create.end":
            switch.sendall(flow.replace(mac, bytes.fromhex(said["payload"]["port"]["mac_address"].replace(":", ""))))

    with kombu.Connection(spec["url"]) as connection, connection.channel() as channel:
        queue = channel.queue_declare("", exclusive=True).queue
        channel.queue_bind(queue, spec["exchange"], "notifications.*")
        channel.basic_consume(queue, no_ack=True, callback=take)
        print("ready", flush=True)
        while True:
            connection.drain_events()


main()
