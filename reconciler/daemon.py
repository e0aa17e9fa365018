"""The composition root of the daemon: `run_daemon`, until SIGTERM. Wiring only; `assembly` joins the parts.

Nothing below knows how it is put together; nothing here decides anything about drift.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator

from reconciler import logs
from reconciler.assembly import Assembly, build, compose_desired, load_desired, open_store, streams
from reconciler.doors.control import ControlServer
from reconciler.doors.http import HttpServer
from reconciler.doors.mqtt import Publisher
from reconciler.doors.narrate import Narrator
from reconciler.doors.notify import Notifier
from reconciler.errors import ConfigError, DriverError, ReconcilerError
from reconciler.lock import node_lock
from reconciler.logs import get_logger
from reconciler.once import background, run_once
from reconciler.openstack import OpenStack
from reconciler.promptness import take_short_turns
from reconciler.report import Stream
from reconciler.settings import Settings
from reconciler.start import follow_files, recall, recall_late

__all__ = ["compose_desired", "load_desired", "open_store", "run_daemon", "run_once"]

log = get_logger("daemon")

STOP_PATIENCE = 5.0
"""Seconds that passes under way may take to end after SIGTERM, and the store to write what waits."""

SWITCH_INTERVAL = 0.0005
"""Seconds that a thread at work (the store's, one that parses YAML) may keep a repair waiting; Python's own is ten
times that."""

COLLECTIONS = (2_000, 5, 1_000)
"""Python's own thresholds would look through all of a large model several times while it is made, 0.2 s each."""

READY_PATIENCE = 10.0
"""Seconds after which systemd is told READY whatever the node is like (the YAML is wrong, Open vSwitch is away)."""

READY_TIMES = 10
"""READY is said so often: one that comes while systemd reads its unit files again is lost (252), and a first pass over
services makes it do that."""

READY_QUIET = 0.5
"""Seconds without news after which what is left is for others to do: a tap that is not plugged yet, a conflict."""


async def run_daemon(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code. Raises LockHeldError when another one runs."""
    logs.configure(settings.log_level, settings.log_format)
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)
    try:
        take_short_turns()
    except DriverError as error:
        log.info(
            "not_prompt", error=str(error), next="its unit may ask in its stead, as systemd/reconciler.service does"
        )
    with node_lock(settings.lock_path):
        parts = build(settings, extra_sinks=[Narrator(settings.log_format)])
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, _reload, parts)
        log.info("starting", node=settings.node, pid=os.getpid(), desired=str(settings.desired))
        parts.writer.start()
        async with _doors(parts), background(_supervise(parts), "daemon") as running:
            stopping = asyncio.create_task(stop.wait(), name="stop")
            await asyncio.wait({stopping, running}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if running.done():
                running.result()
            log.info("stopping")
            await parts.engine.drain(STOP_PATIENCE)
        if not await parts.writer.close(STOP_PATIENCE):
            log.warning("store_left_behind", queued=parts.writer.queued, problem=parts.writer.problem)
    return 0


async def _supervise(parts: Assembly) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(parts.engine.run(), name="engine")
        remembered = await recall(parts)
        openstack = _openstack(parts)
        if openstack is not None:
            await openstack.recall()
            group.create_task(openstack.run(), name="openstack")
        parts.engine.gates.in_sync.started()
        parts.engine.look(parts.engine.scopes(), "started")
        group.create_task(follow_files(parts, remembered), name="files")
        group.create_task(parts.cluster.run(), name="cluster")
        group.create_task(_remember_statuses(parts), name="statuses")
        group.create_task(_freeze(parts), name="freeze")
        if remembered is None:
            group.create_task(recall_late(parts), name="recall")


async def _remember_statuses(parts: Assembly) -> None:
    """Write the statuses behind, and keep the gauges of what is not an event true."""
    engine, last = parts.engine, -1.0
    broken: dict[str, int] = {}
    while True:
        await asyncio.sleep(1.0)
        if engine.last_news != last:
            last = engine.last_news
            parts.writer.statuses(engine.statuses.not_right())
        parts.metrics.store_available.set(parts.writer.available)
        parts.metrics.budget_waiting.set(sum(budget.wanted for budget in parts.node.budgets()))
        _measure_streams(parts, broken)


def _measure_streams(parts: Assembly, broken: dict[str, int]) -> None:
    """One series for all switches: a bridge's name is no label. The stream is ready when all of them are.

    `broken` is how often each of them had broken off when this was last called.
    """
    by_kind: dict[str, list[Stream]] = {}
    for stream in streams(parts.catalog, parts.source, parts.engine.clock, parts.beside):
        by_kind.setdefault(stream.name.partition(" ")[0], []).append(stream)
    for name, members in by_kind.items():
        parts.metrics.stream(name, ready=all(stream.ready for stream in members))
        heard = [stream.last_event for stream in members if stream.last_event is not None]
        if heard:
            parts.metrics.stream_event(name, min(heard))
        for stream in members:
            parts.metrics.stream_broke(name, max(0, stream.lost - broken.get(stream.name, 0)))
            broken[stream.name] = stream.lost
    parts.metrics.keep_streams(by_kind.keys())


async def _freeze(parts: Assembly) -> None:
    """Once the node is as declared, what lives now lives long: no collection is to look through it again."""
    while not parts.engine.converged():
        await asyncio.sleep(0.5)
    gc.collect(1)
    gc.freeze()


@contextlib.asynccontextmanager
async def _doors(parts: Assembly) -> AsyncIterator[None]:
    """The control socket, HTTP, systemd and MQTT. Without HTTP or the broker the node is held all the same."""
    control = ControlServer(parts.settings.control_path, parts.node, parts.metrics)
    await control.start()
    http: HttpServer | None = None
    try:
        if parts.settings.listen:
            try:
                http = HttpServer(parts.settings, parts.node, parts.metrics)
                await http.start()
            except ReconcilerError as error:
                log.error("http_not_listening", error=str(error))
                parts.notices.append(str(error))
                http = None
            else:
                parts.notices.extend(http.notices)
        async with background(_tell_systemd(parts, Notifier()), "systemd"), _mqtt(parts):
            yield
    finally:
        if http is not None:
            await http.close()
        await control.close()


def _openstack(parts: Assembly) -> OpenStack | None:
    """Who follows OpenStack, if its broker or API is configured. Their libraries are imported when it connects."""
    if not (parts.settings.amqp.url or parts.settings.neutron.used):
        return None
    age = parts.metrics.notification_age.observe
    openstack = OpenStack(parts.settings, parts.cluster, parts.writer, parts.engine.clock, age)
    parts.beside.extend(openstack.beside())
    return openstack


@contextlib.asynccontextmanager
async def _mqtt(parts: Assembly) -> AsyncIterator[None]:
    """The broker that is told how the node stands, if one is configured."""
    if not parts.settings.mqtt.url:
        yield
        return
    publisher = Publisher(parts.settings, parts.node, parts.engine.clock)
    parts.engine.add_sink(publisher)
    parts.beside.append(publisher)
    async with background(publisher.run(), "mqtt"):
        yield


async def _tell_systemd(parts: Assembly, notifier: Notifier) -> None:
    """READY once all that could be done is done (units ordered after us rely on it), and the watchdog."""
    if not notifier:
        return
    every = min(1.0, notifier.watchdog_interval() or 1.0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_PATIENCE):
            while not parts.engine.book.snapshot.revision:
                await asyncio.sleep(0.02)
            await parts.engine.settle(READY_PATIENCE, READY_QUIET)
    told, problem, left = "", "", READY_TIMES
    while True:
        outcome = str(parts.engine.statuses.outcome())
        healthy, _ = parts.node.healthy()
        try:
            if left:
                notifier.ready(outcome)
                left -= 1
            if healthy:
                notifier.alive()
            if outcome != told:
                notifier.status(outcome)
            told, problem = outcome, ""
        except DriverError as error:
            if str(error) != problem:
                problem = str(error)
                log.error("systemd_not_told", error=problem)
        await asyncio.sleep(every)


def _reload(parts: Assembly) -> None:
    """SIGHUP: take over what may change while running, and say in log and status what needs a restart."""
    try:
        fresh = parts.settings.reload()
    except ConfigError as error:
        log.error("settings_invalid", error=str(error))
        parts.unapplied[:] = [f"the settings were not reloaded, those of before are in force: {error}"]
        return
    logs.set_level(fresh.log_level)
    changed = [name for name in parts.settings.differing(fresh) if name != "log_level"]
    log.info("settings_reloaded", log_level=fresh.log_level, need_restart=changed)
    what = f"changed settings that are not in force before 'systemctl restart reconciler': {', '.join(changed)}"
    parts.unapplied[:] = [what] if changed else []
