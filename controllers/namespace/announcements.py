"""Saying again that an address is here: once is not enough when the way out is made in the same moment.

The first announcement goes out with the address. It is lost when the device has no carrier yet, or the flows of its
bridge, which wait for the port, are not there; so it is repeated, as Neutron does with ``arping -c 3``.
"""

from __future__ import annotations

import asyncio
import heapq

from controllers.drivers.netlink import announce
from controllers.drivers.netlink.client import Netlink
from controllers.namespace.state import SetAddress
from reconciler.errors import ReconcilerError
from reconciler.logs import get_logger

AGAIN = (1.0, 3.0)
"""Seconds after an address has appeared."""

log = get_logger("namespace")


class Announcements:
    """`add` from the pass, `run` beside the stream. An address that is gone again is not announced."""

    def __init__(self, driver: Netlink) -> None:
        self._driver = driver
        self._due: list[tuple[float, str, str, str]] = []
        self._more = asyncio.Event()

    def add(self, action: SetAddress) -> None:
        now = asyncio.get_running_loop().time()
        for seconds in AGAIN:
            heapq.heappush(self._due, (now + seconds, action.namespace, action.dev, action.address))
        self._more.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._more.clear()
            try:
                async with asyncio.timeout_at(self._due[0][0] if self._due else None):
                    await self._more.wait()
            except TimeoutError:
                while self._due and self._due[0][0] <= loop.time():
                    await self._say(*heapq.heappop(self._due)[1:])

    async def _say(self, namespace: str, dev: str, address: str) -> None:
        space = self._driver.known(namespace)
        link = None if space is None else space.by_name().get(dev)
        if space is None or link is None or (link.ifindex, address) not in space.addresses:
            return
        try:
            await self._driver.perform(
                namespace, lambda session: announce.announce(session, namespace, link, address), tables=()
            )
        except ReconcilerError as error:
            log.debug("announcement_failed", namespace=namespace, device=dev, address=address, error=str(error))
