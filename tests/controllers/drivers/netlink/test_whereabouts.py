"""Where a process is, told without the right to trace it; also when the name was given to another namespace."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from controllers.drivers.netlink.whereabouts import Place, place_of
from tests.controllers.drivers.netlink.private import ip, privately


def where(pid: int, name: str) -> Place:
    return place_of(pid, name, timeout=5.0)


@contextlib.contextmanager
def process_in(name: str) -> Iterator[subprocess.Popen[bytes]]:
    argv = ["ip", "netns", "exec", name, "sh", "-c", "echo there; exec sleep 1000"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"there\n"
        yield running
        running.kill()


@privately
async def test_a_process_is_in_the_namespace_until_the_name_is_anothers() -> None:
    ip("netns", "add", "one")
    ip("netns", "add", "two")
    with process_in("one") as process:
        assert [where(process.pid, name) for name in ("one", "two", "three")] == [
            Place.THERE, Place.ELSEWHERE, Place.NOWHERE
        ]  # fmt: skip
        ip("netns", "del", "one")
        assert where(process.pid, "one") is Place.NOWHERE
        ip("netns", "add", "one")
        assert where(process.pid, "one") is Place.ELSEWHERE


@privately
async def test_one_that_has_ended_is_no_reason_to_do_anything() -> None:
    ip("netns", "add", "one")
    with process_in("one") as process:
        process.kill()
        process.wait()
        assert where(process.pid, "one") is Place.THERE


@privately
async def test_without_a_process_only_the_name_is_asked_for() -> None:
    ip("netns", "add", "one")
    assert (where(0, "one"), where(0, "two")) == (Place.THERE, Place.NOWHERE)
