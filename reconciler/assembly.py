"""The parts of one process and how they are joined. `daemon` and `once` run what is built here. Wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from controllers.catalog import SECTIONS, Catalog, spec_classes
from desired.network.compose import Composed, Composer
from desired.network.load import load
from desired.schema import Loaded
from desired.snapshot import Snapshot
from desired.sources.files import FilesSource
from desired.store import RevisionRow, Store
from reconciler.clock import Clock, SystemClock
from reconciler.cluster import Cluster
from reconciler.contract import Sink
from reconciler.engine import Engine
from reconciler.intake import Intake
from reconciler.logs import get_logger
from reconciler.metrics import Metrics
from reconciler.node import Feed, LocalNode
from reconciler.report import Stream
from reconciler.settings import Settings
from reconciler.writer import StoreWriter

log = get_logger("daemon")

MOST_NOTICES = 10
"""Of OpenStack's objects that are left out, so many are shown."""


class Beside(Protocol):
    """Something beside the engine that `status` has a word of: a broker that is told, or listened to."""

    def stream(self) -> Stream: ...

    def notices(self) -> Sequence[str]: ...


@dataclass(slots=True)
class Assembly:
    """The parts of one process."""

    settings: Settings
    catalog: Catalog
    metrics: Metrics
    engine: Engine
    writer: StoreWriter
    source: FilesSource
    intake: Intake
    cluster: Cluster
    node: LocalNode
    notices: list[str] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)
    unapplied: list[str] = field(default_factory=list)
    """What the last reload of the settings could not put into force."""


def open_store(settings: Settings) -> Store:
    """The store of this node, not opened yet. SQLAlchemy is imported here and not before."""
    from desired.sql import SqlStore  # noqa: PLC0415 - 20 MiB that a plain verb does not need

    return SqlStore(settings.store_url, settings.node)


def _scalar(url: str, query: str, timeout: float) -> Any:
    """One value of any database, for checks."""
    from desired.sql.scalar import scalar  # noqa: PLC0415 - as above

    return scalar(url, query, timeout)


def load_desired(settings: Settings, node: str | None = None, roles: Sequence[str] | None = None) -> Loaded:
    """What the desired directory declares for this node, or for another one that is named."""
    return compose_desired(settings, node, roles).loaded


def compose_desired(settings: Settings, node: str | None = None, roles: Sequence[str] | None = None) -> Composed:
    """The same with the model behind it. Local VLANs are dealt anew: which ones a node really uses only it knows."""
    chosen, name = frozenset(settings.roles if roles is None else roles), node or settings.node
    loaded = load(settings.desired, node=name, roles=chosen, sections=SECTIONS)
    composer = Composer(name)
    return composer.compose(loaded, composer.dealt(loaded))


def build(settings: Settings, *, journal: bool = True, extra_sinks: Sequence[Sink] = ()) -> Assembly:
    """Put the parts together. Needs a running loop. Without `journal` (a dry run) no pass is written to the store."""
    clock = SystemClock()
    catalog = Catalog.build(settings, _scalar)
    metrics = Metrics(controllers=[c.name for c in catalog.all()], kinds=spec_classes(), streams=("ovsdb", "files"))
    catalog.checks.gauge = metrics.check
    writer = StoreWriter(lambda: open_store(settings), wall=clock.wall, retention=settings.retention.limits())
    feed = Feed()
    sinks: list[Sink] = [metrics, feed, *extra_sinks, *([writer] if journal else [])]
    engine = Engine(catalog.all(), settings=settings, clock=clock, metrics=metrics, sinks=sinks)
    engine.queue.foremost = catalog.ovsdb.name  # one scope, on whose ports flows, links and services stand

    written = ""

    def remember(snapshot: Snapshot) -> None:
        """Each state of the YAML; of those that notifications make of it, the newest when the store gets to it."""
        nonlocal written
        if not journal:
            return
        before, written = written, cluster.digest
        row = RevisionRow(snapshot.revision, clock.wall(), resources=len(snapshot.resources))
        writer.revision(row, list(snapshot.resources.values()), passing=bool(written) and written == before)

    intake = Intake(engine, FilesSource.name, settings.settle_remove, remember)
    cluster = Cluster(settings.node, intake, catalog.ovsdb.observed_ports, metrics.compose_seconds.observe)
    source = FilesSource(
        settings.desired,
        node=settings.node,
        roles=frozenset(settings.roles),
        sections=SECTIONS,
        quiet=settings.settle_add,
    )
    notices: list[str] = []
    beside: list[Beside] = []
    unapplied: list[str] = []
    node = LocalNode(
        settings,
        engine,
        intake,
        writer,
        feed,
        lambda: streams(catalog, source, clock, beside),
        lambda: [*notices, *unapplied, *_ovs_notices(catalog), *_cluster_notices(cluster), *_beside_notices(beside)],
        lambda: (cluster.model, cluster.allocations.vlans),
    )
    applied: list[str] = []

    def on_converged(revision: str) -> None:
        if applied[-1:] != [revision]:
            applied[:] = [revision]
            writer.applied(revision, clock.wall())
            asyncio.get_running_loop().call_soon(lambda: log.info("converged", revision=revision))  # after the story

    engine.on_converged = on_converged
    return Assembly(
        settings, catalog, metrics, engine, writer, source, intake, cluster, node, notices, beside, unapplied
    )


def streams(catalog: Catalog, source: FilesSource, clock: Clock, beside: Sequence[Beside] = ()) -> list[Stream]:
    def wall(at: float) -> float | None:
        return clock.wall() - (clock.now() - at) if at else None

    ovsdb = catalog.ovsdb.driver
    found = [
        Stream("ovsdb", ovsdb.ready, "" if ovsdb.ready else ovsdb.problem, wall(ovsdb.last_event), ovsdb.lost_count)
    ]
    found += [
        Stream(f"openflow {switch.bridge}", switch.ready, switch.problem, wall(switch.last_event), switch.lost_count)
        for switch in catalog.openflow.switches()
    ]
    netlink = catalog.namespaces.driver
    if netlink.ready or catalog.namespaces.scopes():
        found.append(Stream("netlink", netlink.ready, netlink.problem, lost=netlink.lost))
    systemd = catalog.services.driver
    if systemd.used:
        found.append(Stream("systemd", systemd.ready, systemd.problem))
    return [*found, Stream("files", not source.detail, source.detail), *(each.stream() for each in beside)]


def _beside_notices(beside: Sequence[Beside]) -> Sequence[str]:
    return [said for each in beside for said in each.notices()]


def _ovs_notices(catalog: Catalog) -> Sequence[str]:
    root = catalog.ovsdb.driver.replica.root
    if root is not None and root.other_config.get("flow-restore-wait") == "true":
        what = "other_config:flow-restore-wait is true: vswitchd forwards nothing until it is removed"
        return (f"{what} (ovs-vsctl remove Open_vSwitch . other_config flow-restore-wait)",)
    return ()


def _cluster_notices(cluster: Cluster) -> Sequence[str]:
    """What waits, and what of OpenStack's objects is left out; of many the first ones."""
    said = [cluster.waits] if cluster.waits else []
    said += cluster.notices[:MOST_NOTICES]
    more = len(cluster.notices) - MOST_NOTICES
    return [*said, f"and {more} more of this kind (in the log)"] if more > 0 else said
