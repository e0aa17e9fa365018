"""A node's rules without the daemon around them: real kernel, real iptables, in namespaces of their own.

`inside` runs an async test in a forked child that has a network and a mount namespace of its own and a private
``/run``; everything in there ends with the child. `Bench` is the one path (observe, diff, act, verify) over a
RulesController, with YAML as a user writes it.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import signal
import subprocess
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from controllers.drivers.iptables.rules import Variant
from controllers.rules.controller import RulesController
from desired.kinds.sections import SECTIONS
from desired.resource import Resource, ResourceId
from desired.schema.tree import load_tree
from reconciler.clock import SystemClock
from reconciler.contract import Event, Focus, Scope, View
from reconciler.gates.admission import Gates
from reconciler.pipeline import PassResult, Pipeline
from reconciler.settings import Settings

PATIENCE = 60.0
_CLONE_NEWNS, _CLONE_NEWNET, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000_0000, 0x4000, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def inside(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run `test` in a child process in namespaces of its own; its failure is the test's failure."""

    @functools.wraps(test)
    def run() -> None:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            _child(test, write)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read().decode()
        _, status = os.waitpid(pid, 0)
        if status or said:
            raise AssertionError(f"in the child: {said or os.waitstatus_to_exitcode(status)}")

    del run.__wrapped__  # pytest would take it for a coroutine
    return run


def _child(test: Callable[[], Awaitable[None]], write: int) -> None:
    code = 1
    try:
        _libc.prctl(1, signal.SIGKILL)
        signal.alarm(int(PATIENCE))
        _own_namespaces()
        asyncio.run(test())
        code = 0
    except BaseException:  # noqa: BLE001  (whatever it was, the parent reports it)
        os.write(write, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _own_namespaces() -> None:
    if _libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "needs root: namespaces cannot be made without it")
    if _libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "mount --make-rprivate /")
    if _libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=755"):
        raise OSError(ctypes.get_errno(), "mount tmpfs /run")
    Path("/run/netns").mkdir()
    sh("ip link set lo up")


def sh(command: str, *, stdin: str | None = None) -> str:
    """Run a shell command; what it said. Raises AssertionError when it fails."""
    done = subprocess.run(
        command, shell=True, input=stdin or "", capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


def ns(name: str, command: str, *, stdin: str | None = None) -> str:
    """The same in a named network namespace."""
    return sh(command if name == "host" else f"ip netns exec {name} {command}", stdin=stdin)


def load(text: str) -> dict[ResourceId, Resource]:
    """What a document declares."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "node.yaml").write_text(text)
        loaded = load_tree(directory, node="n1", roles=frozenset(), sections=SECTIONS)
    assert loaded.ok, loaded.problems
    return {resource.id: resource for resource in loaded.resources}


class Bench:
    """Use it as an async context manager; `declare`, then `run` passes."""

    def __init__(self, variant: Variant = Variant.NFT) -> None:
        self.controller = RulesController(timeout=5.0, variant=variant)
        self.resources: dict[ResourceId, Resource] = {}
        self.gates = Gates.build(Settings(), usable=lambda _: True, chance=lambda: 0.5)
        self.gates.in_sync.started()
        self.pipeline = Pipeline({self.controller.name: self.controller}, self.gates, SystemClock())
        self.events: list[Event] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch(), name="watch")
        await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        async for event in self.controller.watch():
            self.events.append(event)

    def declare(self, text: str) -> None:
        self.resources = load(text) if text else {}
        self._views: dict[str, View] = {}

    def view(self, namespace: str) -> View:
        scope = Scope("rules", namespace)
        if namespace not in self._views:
            mine = {rid: r for rid, r in self.resources.items() if self.controller.scope(r) == scope}
            self._views[namespace] = View(scope, mine, "r1", everything=self.resources)
        return self._views[namespace]

    async def run(self, namespace: str = "host", focus: Focus = None) -> PassResult:
        """One pass. Fails when something was tried and did not come to be."""
        result = await self.pipeline.run(self.view(namespace), focus)
        if result.blind is not None:
            raise result.blind
        return result

    async def converge(self, namespace: str = "host") -> PassResult:
        """One pass, after which a second plans nothing."""
        result = await self.run(namespace)
        assert not result.failed, [str(failure.error) for failure in result.failed]
        again = await self.run(namespace)
        assert not again.plan.groups, [(c.resource, c.why) for g in again.plan.groups for c in g.changes]
        return result

    async def event(self, namespace: str = "host", within: float = 3.0) -> Event:
        """The next event of a namespace; what came before is forgotten with `forget`."""
        deadline = asyncio.get_running_loop().time() + within
        while asyncio.get_running_loop().time() < deadline:
            for event in self.events:
                if event.scope.name == namespace:
                    self.events.remove(event)
                    return event
            await asyncio.sleep(0.002)
        raise AssertionError(f"no event of {namespace} within {within} s")

    async def forget(self) -> None:
        await asyncio.sleep(0.03)
        self.events.clear()
