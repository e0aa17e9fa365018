"""The floor for services: hear that one of these units stopped, start it. ``floor_services.py SOCKET SPEC.json``.

SPEC is ``{"units": {object path: name}}``. One asyncio process on the system bus; nothing is asked, nothing is checked.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

SYSTEMD, ROOT = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
RULE = f"type='signal',sender='{SYSTEMD}',member='PropertiesChanged',path_namespace='{ROOT}/unit'"


async def main() -> None:
    address, spec = sys.argv[1:]
    units = json.loads(Path(spec).read_text())["units"]
    bus = await MessageBus(bus_address=f"unix:path={address}", bus_type=BusType.SYSTEM).connect()

    def heard(message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL or message.member != "PropertiesChanged":
            return
        name = units.get(message.path)
        state = message.body[1].get("ActiveState") if name is not None else None
        if state is not None and state.value in {"failed", "inactive"}:
            bus.send(
                Message(
                    destination=SYSTEMD, path=ROOT, interface=f"{SYSTEMD}.Manager", member="StartUnit",
                    signature="ss", body=[name, "replace"],
                )
            )  # fmt: skip

    bus.add_message_handler(heard)
    await bus.call(Message("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch",
                           signature="s", body=[RULE]))  # fmt: skip
    await bus.call(Message(SYSTEMD, ROOT, f"{SYSTEMD}.Manager", "Subscribe"))
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
