"""The explicit list of controllers: the only registration. A new kind is a spec, a controller and a line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from controllers.checks.controller import ChecksController
from controllers.drivers.probes.ask import Scalar, ask
from controllers.files.controller import FilesController
from controllers.namespace.controller import NamespaceController
from controllers.openflow import check
from controllers.openflow.controller import OpenFlowController
from controllers.ovsdb.controller import OvsdbController
from controllers.ownership import Owner
from controllers.rules.controller import RulesController
from controllers.services.controller import ServicesController
from desired.network.section import SECTIONS
from desired.resource import Resource, Spec
from desired.schema import Problem
from reconciler.contract import Controller
from reconciler.settings import Settings

__all__ = ["SECTIONS", "Catalog", "misspelt", "spec_classes"]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The controllers of a node; `ovsdb` and `openflow` are named for what the doors show of their streams."""

    ovsdb: OvsdbController
    openflow: OpenFlowController
    rules: RulesController
    files: FilesController
    services: ServicesController
    checks: ChecksController
    namespaces: NamespaceController

    @classmethod
    def build(cls, settings: Settings, scalar: Scalar | None = None) -> Catalog:
        """`scalar` asks a database, for checks; without it those wait."""
        asker = partial(ask, scalar=scalar)
        ovsdb = OvsdbController(
            settings.ovsdb,
            owner=Owner(settings.owner),
            datapath_type=settings.datapath_type or "system",
            timeout=settings.timeouts.ovsdb,
        )
        openflow = OpenFlowController(
            settings.ovs_rundir,
            marked=ovsdb.owned_bridges,
            timeout=settings.timeouts.openflow,
            compile_timeout=settings.timeouts.ofctl,
        )
        ovsdb.on_bridges.append(openflow.bridges_changed)
        namespaces = NamespaceController(owner=Owner(settings.owner), untouchable=settings.untouchable)
        namespaces.on_lost.append(ovsdb.device_lost)
        namespaces.bridge_of = ovsdb.bridge_of
        ovsdb.guard = namespaces.guarded
        rules = RulesController(timeout=settings.timeouts.openflow)
        namespaces.on_made.append(rules.namespace_made)
        services = ServicesController(settings.owner, timeout=settings.timeouts.ovsdb, asker=asker)
        namespaces.on_made.append(services.namespace_made)
        return cls(
            ovsdb,
            openflow,
            rules,
            FilesController(settings.owner),
            services,
            ChecksController(asker),
            namespaces,
        )

    def all(self) -> Sequence[Controller]:
        return (self.ovsdb, self.openflow, self.rules, self.files, self.services, self.checks, self.namespaces)


async def misspelt(resources: Sequence[Resource], *, timeout: float) -> Sequence[Problem]:
    """Mistakes that only the node's own tools know of, each at its place. Raises DriverError when a tool is missing."""
    return await check.misspelt(resources, timeout=timeout)


def spec_classes() -> dict[str, type[Spec]]:
    """Every kind's spec, by kind."""
    controllers = (
        OvsdbController,
        OpenFlowController,
        RulesController,
        FilesController,
        ServicesController,
        ChecksController,
        NamespaceController,
    )
    return {spec.kind: spec for controller in controllers for spec in controller.specs}
