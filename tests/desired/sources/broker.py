"""Helpers for tests at a real broker: wait, publish by hand, look into a queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import kombu

from tests.desired.network.neutron import message, network
from tests.desired.sources.conftest import QUEUE

PATIENCE = 60.0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.contextmanager
def channel(url: str) -> Iterator[Any]:
    with kombu.Connection(url) as connection, connection.channel() as opened:
        yield opened


def publish(url: str, *bodies: bytes, exchange: str = "neutron", **more: Any) -> None:
    with channel(url) as opened:
        for body in bodies:
            opened.basic_publish(opened.prepare_message(body, **more), exchange, "notifications.info")


def told(name: str, at: float = 1.0, number: int = 1) -> bytes:
    return message("network.create.end", {"network": network(number, name=name)}, at, key=name)


def queued(url: str, queue: str = QUEUE) -> int:
    """Ready messages: with nobody consuming, those that are not acknowledged too."""
    with channel(url) as opened:
        return int(opened.queue_declare(queue, passive=True).message_count)
