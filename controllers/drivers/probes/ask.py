"""Asking one thing of the node: is the port open, does the URL answer, how full is the disk. Changes nothing.

`ask` is called by the kinds `service` and `check` with the fields of a `Probe`. What cannot be answered within the
timeout has failed; an answer never contains a password.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import socket
import ssl
import stat
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controllers.drivers.netlink import netns
from controllers.drivers.probes import amqp
from controllers.drivers.probes.configured import value_at
from desired.kinds.file import SECRET
from desired.kinds.probe import Probe, without_passwords
from reconciler.errors import DriverError, NotReady

NAMESPACES = Path("/run/netns")
_SAID = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """`ok`, and in words what was found. `value` is the number that was measured, if there is one."""

    ok: bool
    words: str
    value: float | None = None


Scalar = Callable[[str, str, float], Any]
"""(URL, query, seconds) to one value of a database; blocking, raises DriverError. Its library is not known here."""

Asker = Callable[[Probe, float], Awaitable[Answer]]


async def ask(probe: Probe, timeout: float, scalar: Scalar | None = None) -> Answer:
    """Ask once. Raises NotReady when the question itself cannot be asked (its URL was not stored, no namespace).

    `scalar` is needed for what asks a database.
    """
    try:
        async with asyncio.timeout(timeout):
            if probe.question == "sql":
                return await _sql(probe, timeout, scalar)
            return await _QUESTIONS[probe.question](probe, timeout)
    except TimeoutError:
        return Answer(ok=False, words=f"{probe.words()}: no answer within {timeout:g} s")
    except DriverError as error:
        return Answer(ok=False, words=f"{probe.words()}: {error}")
    except OSError as error:
        # asyncio says "Connect call failed" instead of why; a name that is not found has a text of its own.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        return Answer(ok=False, words=f"{probe.words()}: {why}")


# -- the network -----------------------------------------------------------------------------------------------------


async def _tcp(probe: Probe, _timeout: float) -> Answer:
    assert probe.tcp is not None
    host, _, port = probe.tcp.rpartition(":")
    infos = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    family, kind, proto, _, address = infos[0]
    sock = await asyncio.to_thread(_socket_in, probe.namespace, family, kind, proto)
    with sock:
        await asyncio.get_running_loop().sock_connect(sock, address)
    return Answer(ok=True, words=f"{probe.words()}: open")


def _socket_in(namespace: str | None, family: int, kind: int, proto: int) -> socket.socket:
    """A socket of a network namespace: it stays in there, whoever uses it. Entered by a thread that ends with it."""
    if namespace is None:
        return _nonblocking(family, kind, proto)
    found: list[socket.socket | OSError] = []

    def inside() -> None:
        try:
            descriptor = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                netns.enter(descriptor)
                found.append(_nonblocking(family, kind, proto))
            finally:
                os.close(descriptor)
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=inside, name=f"probe-{namespace}")
    thread.start()
    thread.join()
    if isinstance(found[0], FileNotFoundError):
        raise NotReady(f"there is no namespace {namespace}")
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _nonblocking(family: int, kind: int, proto: int) -> socket.socket:
    sock = socket.socket(family, kind, proto)
    sock.setblocking(False)  # noqa: FBT003 - the name of the method says it
    return sock


async def _unix(probe: Probe, _timeout: float) -> Answer:
    assert probe.unix is not None
    with _nonblocking(socket.AF_UNIX, socket.SOCK_STREAM, 0) as sock:
        await asyncio.get_running_loop().sock_connect(sock, probe.unix)
    return Answer(ok=True, words=f"{probe.words()}: accepts")


async def _http(probe: Probe, _timeout: float) -> Answer:
    assert probe.http is not None
    url = urlsplit(probe.http)
    context = ssl.create_default_context() if url.scheme == "https" else None
    port = url.port or (443 if context else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=context)
    try:
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        asked = f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nUser-Agent: reconciler\r\nConnection: close\r\n\r\n"
        writer.write(asked.encode())
        line = await reader.readline()
    finally:
        writer.close()
    found = re.match(rb"HTTP/1\.[01] (\d{3})", line)
    if found is None:
        return Answer(ok=False, words=f"{probe.words()}: what answers does not speak HTTP")
    code = int(found[1])
    ok = code == probe.status if probe.status is not None else code < 500
    return Answer(ok, f"{probe.words()}: answers {code}" + ("" if ok else f", not {probe.status or 'below 500'}"))


async def _amqp(probe: Probe, _timeout: float) -> Answer:
    assert probe.amqp is not None
    login = amqp.parse(_url(probe.amqp))
    try:
        await amqp.log_in(login)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise DriverError(f"no connection to {login.host}:{login.port}: {why}") from error
    return Answer(ok=True, words=f"{probe.words()}: user {login.user} logs in at {login.host}:{login.port}")


async def _ping(probe: Probe, timeout: float) -> Answer:
    argv = ["ping", "-n", "-c", "1", "-W", str(max(1, math.ceil(timeout))), str(probe.ping)]
    code, out = await _run(_inside(probe.namespace, argv), timeout)
    if code == 0:
        return Answer(ok=True, words=f"{probe.words()}: answers")
    return Answer(ok=False, words=f"{probe.words()}: {_last(out) if code > 1 else 'no answer'}")


# -- the node itself -------------------------------------------------------------------------------------------------


async def _command(probe: Probe, timeout: float) -> Answer:
    assert probe.command is not None
    code, out = await _run(_inside(probe.namespace, [*probe.command]), timeout)
    said = _last(out)
    words = f"{probe.words()}: ended with {code}" + (f" and said: {said}" if said else "")
    return Answer(code == probe.exit_code, words, float(code))


def _inside(namespace: str | None, argv: list[str]) -> list[str]:
    if namespace is None:
        return argv
    path = NAMESPACES / namespace
    if not path.exists():
        raise NotReady(f"there is no namespace {namespace}")
    return ["nsenter", f"--net={path}", "--", *argv]


async def _run(argv: list[str], timeout: float) -> tuple[int, str]:
    """Run to the end; killed with its whole process group when that takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise DriverError(f"{argv[0]} is not installed") from error
    try:
        async with asyncio.timeout(timeout):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace")


def _last(out: str) -> str:
    lines = out.strip().splitlines()
    return without_passwords(lines[-1][:_SAID]) if lines else ""


async def _disk(probe: Probe, _timeout: float) -> Answer:
    found = await asyncio.to_thread(os.statvfs, str(probe.disk))
    used = 100.0 * (1 - found.f_bavail / max(1, found.f_blocks - found.f_bfree + found.f_bavail))
    inodes = 100.0 * (1 - found.f_favail / found.f_files) if found.f_files else 0.0
    worst = max(used, inodes)
    words = f"{probe.words()}: {used:.0f} % of the space and {inodes:.0f} % of the inodes are used"
    return Answer(
        worst <= probe.max_used, words + ("" if worst <= probe.max_used else f", above {probe.max_used:g} %"), worst
    )


async def _directory(probe: Probe, _timeout: float) -> Answer:
    total = await _in_thread(lambda: _size(str(probe.directory)), "directory")
    ok = probe.max_bytes is None or total <= probe.max_bytes
    words = f"{probe.words()}: {total:,} bytes" + ("" if ok else f", more than {probe.max_bytes:,}")
    return Answer(ok, words, float(total))


def _size(top: str) -> int:
    total, pending = 0, [top]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                total += status.st_blocks * 512
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
    return total


async def _sql(probe: Probe, timeout: float, scalar: Scalar | None) -> Answer:
    if scalar is None:
        raise NotReady("databases cannot be asked here")
    assert probe.sql is not None
    assert probe.query is not None
    url, query = _url(probe.sql), probe.query
    found = await _in_thread(lambda: scalar(url, query, timeout), "sql")
    try:
        number = float(found)
    except (TypeError, ValueError):
        number = None
    ok = probe.equals is None or str(found) == probe.equals
    if probe.minimum is not None or probe.maximum is not None:
        low, high = (
            (-math.inf if probe.minimum is None else probe.minimum),
            (probe.maximum if probe.maximum is not None else math.inf),
        )
        ok = ok and number is not None and low <= number <= high
    bounds = {"equals": probe.equals, "minimum": probe.minimum, "maximum": probe.maximum}
    wanted = ", ".join(f"{name} {bound}" for name, bound in bounds.items() if bound is not None)
    return Answer(ok, f"{probe.words()}: {probe.query} is {found}" + ("" if ok else f", wanted: {wanted}"), number)


async def _in_thread(call: Callable[[], Any], name: str) -> Any:
    """In a daemon thread of its own: one that hangs holds no worker, and not the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(set_it: Callable[[Any], None], value: Any) -> None:
        if not done.done():
            set_it(value)

    def work() -> None:
        try:
            found = call()
        except (OSError, DriverError) as error:
            send, value = done.set_exception, error
        else:
            send, value = done.set_result, found
        with contextlib.suppress(RuntimeError):  # the loop is gone, and nobody waits
            loop.call_soon_threadsafe(settle, send, value)

    threading.Thread(target=work, name=f"probe-{name}", daemon=True).start()
    return await done


def _url(text: str) -> str:
    """The URL, or what stands at ``ini:FILE:SECTION/KEY``."""
    if not text.startswith("ini:"):
        if f":{SECRET}@" in text:
            raise NotReady("the YAML is unusable and passwords are not stored, so this is not asked")
        return text
    return value_at(text.removeprefix("ini:"))


_QUESTIONS: dict[str, Asker] = {
    "tcp": _tcp,
    "http": _http,
    "unix": _unix,
    "command": _command,
    "amqp": _amqp,
    "ping": _ping,
    "disk": _disk,
    "directory": _directory,
}
