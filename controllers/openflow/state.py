"""What the OpenFlow controller observes of one bridge. Its actions are the driver's own (`AddFlow`, `SetGroup`, …)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controllers.drivers.openflow.flows import Flow, FlowKey
from controllers.openflow.numbered import Numbered
from controllers.openflow.table import Table
from desired.resource import ResourceId


@dataclass(frozen=True, slots=True)
class Form:
    """A flow as it was sent, and the key and flow under which this switch has it ever since."""

    sent: Flow
    key: FlowKey
    flow: Flow


@dataclass(frozen=True, slots=True)
class Observed:
    """The switch's flows at this moment (the replica follows in place) and the compiled declared ones.

    `keys` narrows to these; None is all. `forms` are flows that this switch reports in other words than it was told,
    by the key they were sent with. `names` are flows that were declared once, for the journal. `numbered` are the
    groups and meters; a narrowed pass does not look at them.
    """

    bridge: str
    flows: Mapping[FlowKey, Flow]
    table: Table
    keys: frozenset[FlowKey] | None = None
    resources: frozenset[ResourceId] = frozenset()
    """Flows without a key (waiting, invalid) that a narrowed pass looks at, too."""
    forms: Mapping[FlowKey, Form] = field(default_factory=dict)
    names: Mapping[FlowKey, ResourceId] = field(default_factory=dict)
    numbered: Numbered | None = None
    orphan: bool = False
    """The bridge is ours and no longer declared: its flows go with it, and stay while it does."""
