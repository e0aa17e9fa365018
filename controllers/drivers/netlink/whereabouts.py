"""In which network namespace a process is, compared with a name. Asked of the kernel by numbers (nsid).

``/proc/PID/ns/net`` would say it too, but only to who may trace the process, which a hardened daemon may not. Blocks
for some 0.02 ms. Used by the controller of services.
"""

from __future__ import annotations

import contextlib
import errno
import os
from enum import StrEnum

from controllers.drivers.netlink import requests
from controllers.drivers.netlink.client import RUN_NETNS
from controllers.drivers.netlink.netns import Names
from controllers.drivers.netlink.wire import Channel, Message, RefusedError, attributes
from reconciler.errors import DriverError


class Place(StrEnum):
    """Where a process is: in the namespace of a name, in another; or there is no such name."""

    THERE = "there"
    ELSEWHERE = "elsewhere"
    NOWHERE = "nowhere"


def place_of(pid: int, name: str, *, timeout: float) -> Place:
    """Compare the namespace of a process (0: of none, which only asks for the name) with the one called `name`.

    A process that has just ended is taken to be there: that it ended is told by others. Raises DriverError.
    """
    names = Names(RUN_NETNS)
    if not names.mounted(name):
        return Place.NOWHERE
    if not pid:
        return Place.THERE
    try:
        descriptor = names.open(name)
    except OSError:
        return Place.NOWHERE
    channel = Channel(timeout)
    try:
        return Place.THERE if _same(channel, pid, descriptor, name) else Place.ELSEWHERE
    finally:
        channel.close()
        os.close(descriptor)


def _same(channel: Channel, pid: int, descriptor: int, name: str) -> bool:
    what = f"asking whether process {pid} is in namespace {name}"
    if _number(channel, requests.get_nsid(descriptor), what) < 0:
        with contextlib.suppress(RefusedError):  # another may have been quicker: then it has one
            channel.ask(requests.new_nsid(descriptor), what)
    named = _number(channel, requests.get_nsid(descriptor), what)
    if named < 0:
        raise DriverError(f"namespace {name} gets no nsid, so that it cannot be said who is in it")
    try:
        return named == _number(channel, requests.get_nsid_of(pid), what)
    except RefusedError as error:
        if error.code == errno.ESRCH:
            return True
        raise


def _number(channel: Channel, question: Message, what: str) -> int:
    (answer,) = channel.ask(question, what)
    value = attributes(answer.body, 4).get(1)
    return -1 if value is None else int.from_bytes(value, "little", signed=True)
