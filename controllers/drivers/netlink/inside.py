"""Work inside network namespaces: one thread of its own that enters them, and comes back whatever happens.

A `Session` is one visit: it opens a request socket in each namespace that is needed and closes them all at the end. No
socket outlives a visit, because an open one keeps a deleted namespace, and its veths, alive. Entering and opening
takes 0.01 ms. What is to be done in a visit is a plain function of a session: `client` and the controller write them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from controllers.drivers.netlink import netns, requests, rows
from controllers.drivers.netlink.replica import read
from controllers.drivers.netlink.wire import Channel, Message, RefusedError, attributes
from reconciler.errors import DriverError, NotReady, TerminalError

HOST = "host"
"""The name of the namespace that the daemon itself is in."""

Result = TypeVar("Result")


class Session:
    """One visit. Only used in the thread of `Inside`."""

    def __init__(self, names: netns.Names, home: int, timeout: float) -> None:
        self.names = names
        self._home = home
        self._timeout = timeout
        self._channels: dict[str, Channel] = {}
        self._descriptors: dict[str, int] = {HOST: home}

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        for name in list(self._descriptors):
            self._close(name)

    def _close(self, name: str) -> None:
        if name != HOST:
            os.close(self._descriptors.pop(name))

    def forget(self, name: str) -> None:
        """The name is taken away or given to another namespace."""
        channel = self._channels.pop(name, None)
        if channel is not None:
            channel.close()
        if name in self._descriptors:
            self._close(name)

    def descriptor(self, name: str) -> int:
        """A file descriptor of the namespace. Raises NotReady when there is none of this name."""
        found = self._descriptors.get(name)
        if found is None:
            try:
                found = self._descriptors[name] = self.names.open(name)
            except FileNotFoundError as error:
                raise NotReady(f"there is no namespace {name}") from error
            except OSError as error:
                raise DriverError(f"namespace {name} cannot be opened: {error.strerror}; tried again soon") from error
        return found

    @contextlib.contextmanager
    def within(self, name: str) -> Iterator[None]:
        """The thread is in the namespace for this block. Raises NotReady when there is none."""
        if name == HOST:
            yield
            return
        descriptor = self.descriptor(name)
        try:
            try:
                netns.enter(descriptor)
            except OSError as error:
                if error.errno == errno.EINVAL:  # the file is there and nothing is mounted on it (yet)
                    raise NotReady(f"there is no namespace {name}") from error
                raise DriverError(f"namespace {name} cannot be entered: {error.strerror}; tried again soon") from error
            yield
        finally:
            netns.leave(self._home)

    def channel(self, name: str) -> Channel:
        found = self._channels.get(name)
        if found is None:
            with self.within(name):
                found = self._channels[name] = Channel(self._timeout)
        return found

    def ask(self, name: str, message: Message, what: str) -> list[Message]:
        """Send a request in a namespace. Raises RefusedError, DriverError, NotReady."""
        return self.channel(name).ask(message, what)

    # -- reading ----------------------------------------------------------------------------------------------------

    def table(self, name: str, table: str, digest: int | None = None) -> tuple[int, list[Any] | None]:
        """Dump a table of a namespace: a digest of what was read, and the rows; None when it is `digest` again.

        Channels are opened anew for each visit, so that an unchanged table is the same to the last byte.
        """
        what = f"reading the {table} of namespace {name}"
        channel = self.channel(name)
        chunks = tuple(chunk for question in requests.TABLES[table]() for chunk in channel.dump(question, what))
        fresh = hash(chunks)
        return fresh, None if fresh == digest else read(table, chunks)

    def link(self, name: str, device: str | int) -> rows.Link | None:
        """The device of this name or number, None when there is none."""
        question = requests.get_link(name=device) if isinstance(device, str) else requests.get_link(index=device)
        try:
            answers = self.ask(name, question, f"looking for device {device} in namespace {name}")
        except RefusedError as error:
            if error.code == errno.ENODEV:
                return None
            raise
        return rows.link(answers[0].body)

    def index(self, name: str, device: str) -> int:
        """The number of the device of this name, 0 when there is none: all that a request has to know of it."""
        return self.channel(name).index_of(device)

    def number(self, name: str) -> int:
        """The nsid by which the host's listener tells the namespace's events apart; it is given one if it has none."""
        descriptor = self.descriptor(name)
        known = self._nsid(descriptor)
        if known < 0:
            with contextlib.suppress(RefusedError):  # another may have been quicker: then it has one
                self.ask(HOST, requests.new_nsid(descriptor), f"giving namespace {name} a number")
            known = self._nsid(descriptor)
        if known < 0:
            raise DriverError(f"namespace {name} gets no nsid, so that its events would not be heard")
        return known

    def _nsid(self, descriptor: int) -> int:
        (answer,) = self.ask(HOST, requests.get_nsid(descriptor), "asking for the number of a namespace")
        value = attributes(answer.body, 4).get(1)
        return -1 if value is None else int.from_bytes(value, "little", signed=True)

    # -- sysctls ----------------------------------------------------------------------------------------------------

    def read_sysctls(self, name: str, keys: Sequence[str]) -> dict[str, str | None]:
        """Values of sysctls (paths below /proc/sys), with single spaces; None for one that is not there."""
        values: dict[str, str | None] = {}
        with self.within(name):
            for key in keys:
                try:
                    descriptor = os.open(f"/proc/sys/{key}", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    values[key] = None
                    continue
                try:
                    values[key] = " ".join(os.read(descriptor, 4096).decode().split())
                except OSError:
                    values[key] = ""  # write-only, or it cannot be read now
                finally:
                    os.close(descriptor)
        return values

    def write_sysctl(self, name: str, key: str, value: str) -> None:
        """Raises NotReady when there is none of this name, TerminalError when the value is refused."""
        with self.within(name):
            try:
                descriptor = os.open(f"/proc/sys/{key}", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(descriptor, value.encode())
                finally:
                    os.close(descriptor)
            except FileNotFoundError as error:
                raise NotReady(f"namespace {name} has no sysctl {key}") from error
            except OSError as error:
                what = f"writing {value!r} to the sysctl {key} of namespace {name}: {error.strerror}"
                if error.errno == errno.EROFS:
                    what += "; /proc/sys is read-only for this daemon (ProtectKernelTunables?)"
                raise TerminalError(what) from error

    # -- namespaces -------------------------------------------------------------------------------------------------

    def create(self, name: str, mark: str) -> None:
        """Make a namespace that carries the mark from the moment its name is there. Raises DriverError."""
        try:
            self.names.share()
            try:
                netns.unshare()
                channel = Channel(self._timeout)
                try:
                    channel.ask(requests.set_link(1, up=True, alias=mark), f"marking the new namespace {name}")
                finally:
                    channel.close()
                self.names.mount(name)
            finally:
                netns.leave(self._home)
        except OSError as error:
            raise DriverError(f"creating namespace {name}: {error.strerror or error}; tried again soon") from error
        self.forget(name)

    def delete(self, name: str) -> None:
        """Take the name away. Raises DriverError."""
        self.forget(name)
        try:
            self.names.unmount(name)
        except OSError as error:
            raise DriverError(f"deleting namespace {name}: {error.strerror}; tried again soon") from error

    @contextlib.contextmanager
    def packets(self, name: str, device: str) -> Iterator[socket.socket]:
        """A socket that sends whole frames from a device. Raises DriverError."""
        with self.within(name):
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            sender.bind((device, 0))
            yield sender
        finally:
            sender.close()


class Inside:
    """The thread. `timeout` bounds every single answer of the kernel; a whole visit may take ten times as long."""

    def __init__(self, directory: os.PathLike[str], timeout: float) -> None:
        self.names = netns.Names(Path(directory))
        self._timeout = timeout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netns", initializer=self._begin)
        self._home = -1

    def _begin(self) -> None:
        self._home = netns.own()

    def begin(self, work: Callable[[Session], Result]) -> asyncio.Future[Result]:
        """Have `work` done in the thread; `ended` waits for it."""
        return asyncio.get_running_loop().run_in_executor(self._thread, self._visit, work)

    async def ended(self, running: asyncio.Future[Result]) -> Result:
        """What a visit found. Raises what its work raises, and DriverError when it does not end."""
        try:
            async with asyncio.timeout(10 * self._timeout):
                return await asyncio.shield(running)
        except TimeoutError as error:
            raise DriverError(f"work in a network namespace did not end in {10 * self._timeout:g} s") from error

    def _visit(self, work: Callable[[Session], Result]) -> Result:
        session = Session(self.names, self._home, self._timeout)
        try:
            return work(session)
        finally:
            session.close()

    def close(self) -> None:
        """End the thread after the visit under way."""
        self._thread.shutdown(wait=False)
