"""systemd over D-Bus: a replica of the units that are asked for, fed by signals, and the orders that change them.

dbus-fast is imported when the first unit is asked for. A lost connection makes the replica void: everything is read
again, and `on_change` is told that anything may have changed. Jobs are queued and not waited for to their end: what
becomes of them is heard of as a change of the unit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from controllers.drivers.systemd.units import SERVICE, UNIT, UP, UnitState, fed
from reconciler.errors import DriverError, NotReady
from reconciler.logs import get_logger

if TYPE_CHECKING:
    from dbus_fast.aio import MessageBus
    from dbus_fast.message import Message

ADDRESS: Final = "unix:path=/run/dbus/system_bus_socket"
_SYSTEMD: Final = "org.freedesktop.systemd1"
_MANAGER: Final = f"{_SYSTEMD}.Manager"
_ROOT: Final = "/org/freedesktop/systemd1"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_MATCHES: Final = (
    f"type='signal',sender='{_SYSTEMD}',member='PropertiesChanged',path_namespace='{_ROOT}/unit'",
    f"type='signal',sender='{_SYSTEMD}',interface='{_MANAGER}',member='UnitFilesChanged'",
    f"type='signal',sender='{_SYSTEMD}',interface='{_MANAGER}',member='Reloading'",
    f"type='signal',sender='{_SYSTEMD}',interface='{_MANAGER}',member='JobRemoved'",
    f"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{_SYSTEMD}'",
)
_ATTEMPTS: Final = 4
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 5.0

log = get_logger("systemd")


@dataclass(slots=True)
class _Ended:
    """Jobs of one unit that ended, by their path, with systemd's word for how."""

    results: dict[str, str] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)


class RefusedError(DriverError):
    """systemd answered an order with an error. `name` is that of D-Bus."""

    def __init__(self, what: str, name: str, text: str) -> None:
        super().__init__(f"{what}: systemd refused it: {text or name}")
        self.name = name


class Systemd:
    """`on_change(names, why)`: these units may have changed; None means all. `timeout` is for every answer."""

    def __init__(
        self, on_change: Callable[[frozenset[str] | None, str], None], *, timeout: float, address: str = ADDRESS
    ) -> None:
        self._on_change = on_change
        self._timeout = timeout
        self._address = address
        self._bus: MessageBus | None = None
        self._wanted = asyncio.Event()
        self._connected = asyncio.Event()
        self._units: dict[str, UnitState] = {}
        self._paths: dict[str, set[str]] = {}
        self._stale: set[str] = set()
        self._reading: dict[str, int] = {}
        self._jobs: dict[str, list[_Ended]] = {}
        self._reloading = asyncio.Lock()
        self._reloads_begun = self._reloads_done = 0
        self.problem = "not connected yet"
        self.last_event = 0.0

    @property
    def ready(self) -> bool:
        return self._connected.is_set()

    @property
    def used(self) -> bool:
        """Was any unit ever asked for?"""
        return self._wanted.is_set()

    # -- the replica ------------------------------------------------------------------------------------------------

    async def unit(self, name: str) -> UnitState:
        """The unit as the replica has it; the first time it is read. Raises NotReady without a connection."""
        await self._need()
        known = self._units.get(name)
        if known is not None and name not in self._stale:
            return known
        return await self._read(name)

    async def read_again(self, name: str) -> UnitState:
        """Read it from systemd, whatever the replica says."""
        await self._need()
        return await self._read(name)

    async def _need(self) -> None:
        self._wanted.set()
        if not self._connected.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._connected.wait()
        if not self._connected.is_set():
            raise NotReady(f"systemd does not answer at {self._address}: {self.problem}")

    async def _read(self, name: str) -> UnitState:
        """Read all of it; again when a signal came in between, which may be newer or older than the answer."""
        what = f"reading unit {name}"
        self._reading[name] = self._reading.get(name, 0) + 1
        try:
            return await self._read_settled(name, what)
        finally:
            self._reading[name] -= 1
            if not self._reading[name]:
                del self._reading[name]

    async def _read_settled(self, name: str, what: str) -> UnitState:
        for _ in range(_ATTEMPTS):
            self._stale.discard(name)
            (path,) = await self._call("LoadUnit", "s", [name], what)
            self._paths.setdefault(path, set()).add(name)
            properties = await self._all(path, UNIT, what)
            if name.endswith(".service"):
                properties |= await self._all(path, SERVICE, what)
            self._units[name] = fed(UnitState(name), properties)
            if name not in self._stale:
                break
        return self._units[name]

    async def _all(self, path: str, interface: str, what: str) -> dict[str, Any]:
        (found,) = await self._ask(path, _PROPERTIES, "GetAll", "s", [interface], what)
        return {name: variant.value for name, variant in found.items()}

    # -- orders -----------------------------------------------------------------------------------------------------

    async def start(self, name: str, patience: float) -> str:
        """Queue a start and wait `patience` seconds for it; the job's result, '' when it goes on."""
        return await self._job("StartUnit", name, patience)

    async def stop(self, name: str, patience: float) -> str:
        return await self._job("StopUnit", name, patience)

    async def restart(self, name: str, patience: float) -> str:
        return await self._job("RestartUnit", name, patience)

    async def reload_unit(self, name: str, patience: float) -> str:
        """Have it read its configuration again (ExecReload)."""
        return await self._job("ReloadUnit", name, patience)

    async def reset_failed(self, name: str) -> None:
        with contextlib.suppress(RefusedError):  # not loaded, so it has not failed
            await self._call("ResetFailedUnit", "s", [name], f"resetting the failure of {name}")

    async def enable(self, name: str) -> None:
        await self._call("EnableUnitFiles", "asbb", [[name], False, False], f"enabling {name}")

    async def disable(self, name: str) -> None:
        await self._call("DisableUnitFiles", "asb", [[name], False], f"disabling {name}")

    async def mask(self, name: str) -> None:
        await self._call("MaskUnitFiles", "asbb", [[name], False, True], f"masking {name}")

    async def unmask(self, name: str) -> None:
        for runtime in (False, True):
            await self._call("UnmaskUnitFiles", "asb", [[name], runtime], f"unmasking {name}")

    async def reload(self) -> None:
        """Have systemd read its unit files again. Those who ask while it reads share the next reading."""
        wanted = self._reloads_begun + 1
        async with self._reloading:
            if self._reloads_done >= wanted:
                return
            self._reloads_begun = begun = self._reloads_begun + 1
            await self._call("Reload", "", [], "daemon-reload", timeout=max(self._timeout, 30.0))
            self._reloads_done = begun
            self._stale |= self._units.keys()

    async def _job(self, method: str, name: str, patience: float) -> str:
        what = f"{method} {name}"
        with self._expecting(name) as ended:
            (job,) = await self._call(method, "ss", [name, "replace"], what)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while job not in ended.results:
                        ended.news.clear()
                        await ended.news.wait()
                    return ended.results[job]
        return ""

    @contextlib.contextmanager
    def _expecting(self, name: str) -> Iterator[_Ended]:
        """All jobs of the unit that end from now on: ours may have ended before its number is known.

        Others' do as well: the start that somebody asked for is cancelled by our stop, and is not ours.
        """
        ended = _Ended()
        self._jobs.setdefault(name, []).append(ended)
        try:
            yield ended
        finally:
            self._jobs[name].remove(ended)
            if not self._jobs[name]:
                del self._jobs[name]

    # -- the connection ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a connection once a unit was asked for. Runs until cancelled."""
        await self._wanted.wait()
        delay = _FIRST_DELAY
        while True:
            try:
                await self._session()
                delay = _FIRST_DELAY
            except DriverError as error:
                self.problem = str(error)
            finally:
                self._lost()
            self._on_change(None, "the connection to systemd was lost")
            await asyncio.sleep(delay)
            delay = min(_LONGEST_DELAY, delay * 2)

    async def _session(self) -> None:
        """Connect, listen, and return when the connection ends. Raises DriverError when it cannot be made."""
        from dbus_fast.aio import MessageBus  # noqa: PLC0415 - only a node with services needs it

        bus = MessageBus(bus_address=self._address)
        bus.add_message_handler(self._heard)
        try:
            async with asyncio.timeout(self._timeout):
                await bus.connect()
            self._bus = bus
            for match in _MATCHES:
                await self._ask("/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", [match], "listening")
            await self._call("Subscribe", "", [], "subscribing to systemd's signals")
            self.problem = ""
            self._connected.set()
            self._on_change(None, "connected to systemd")
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # the library's own
            self.problem = "it closed the connection"
        except TimeoutError as error:
            raise DriverError(f"no answer within {self._timeout:g} s") from error
        except (OSError, EOFError) as error:
            raise DriverError(str(error) or type(error).__name__) from error
        finally:
            bus.remove_message_handler(self._heard)
            bus.disconnect()

    def _lost(self) -> None:
        self._bus = None
        self._connected.clear()
        self._units.clear()
        self._paths.clear()
        self._stale.clear()

    async def _call(self, method: str, signature: str, body: Sequence[Any], what: str, timeout: float = 0.0) -> Any:
        return await self._ask(_ROOT, _MANAGER, method, signature, body, what, timeout)

    async def _ask(  # noqa: PLR0913 - what a D-Bus call has
        self,
        path: str,
        interface: str,
        method: str,
        signature: str,
        body: Sequence[Any],
        what: str,
        timeout: float = 0.0,
    ) -> Any:
        from dbus_fast.constants import MessageType  # noqa: PLC0415 - as above
        from dbus_fast.errors import DBusError  # noqa: PLC0415
        from dbus_fast.message import Message  # noqa: PLC0415

        bus = self._bus
        if bus is None:
            raise NotReady(f"{what}: there is no connection to systemd")
        destination = "org.freedesktop.DBus" if interface == "org.freedesktop.DBus" else _SYSTEMD
        message = Message(
            destination=destination, path=path, interface=interface, member=method, signature=signature, body=[*body]
        )
        try:
            async with asyncio.timeout(timeout or self._timeout):
                answer = await bus.call(message)
        except TimeoutError as error:
            raise DriverError(f"{what}: systemd did not answer within {timeout or self._timeout:g} s") from error
        except (DBusError, OSError, EOFError) as error:
            raise DriverError(f"{what}: {error}") from error
        if answer is None:
            raise DriverError(f"{what}: the connection to systemd was closed")
        if answer.message_type is MessageType.ERROR:
            text = str(answer.body[0]) if answer.body else ""
            raise RefusedError(what, str(answer.error_name), text)
        return answer.body

    # -- signals ----------------------------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        self.last_event = asyncio.get_running_loop().time()
        match message.member:
            case "PropertiesChanged":
                self._properties(message)
            case "JobRemoved":
                self._job_removed(*message.body[1:])
            case "UnitFilesChanged":
                self._all_stale("unit files changed")
            case "Reloading" if not message.body[0]:
                self._all_stale("systemd read its unit files again")
            case "NameOwnerChanged" if self._bus is not None and self.ready:
                self._bus.disconnect()  # another systemd, or none: what was known is void

    def _job_removed(self, job: str, name: str, result: str) -> None:
        for ended in self._jobs.get(name, ()):
            ended.results[job] = result
            ended.news.set()
        unit = self._units.get(name)
        if unit is not None and unit.active not in UP and result == "done":
            self._units[name] = replace(unit, stopped=True)  # a start would have brought it up, or not be done
            self._on_change(frozenset([name]), "unit was stopped")

    def _properties(self, message: Message) -> None:
        names = self._paths.get(str(message.path))
        if not names:
            return
        values = {name: variant.value for name, variant in message.body[1].items()}
        changed = set()
        for name in names:
            unit = self._units.get(name)
            if unit is None or name in self._reading:
                self._stale.add(name)
                changed.add(name)
                continue
            fresh = self._units[name] = fed(unit, values)
            if fresh != unit:
                changed.add(name)
        if changed:
            self._on_change(frozenset(changed), "unit changed")

    def _all_stale(self, why: str) -> None:
        self._stale |= self._units.keys()
        self._on_change(None, why)
