"""What a trace knows before it asks: the model, what is declared on this node, and what of it is not right.

Also the finding of the declared flow behind one that a packet met.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from desired.kinds.openflow import FlowSpec, split_flow
from desired.network.calling import device_name
from desired.network.model import Owner
from desired.network.topology import Network, Port, Router, Topology
from desired.network.trace.questions import Device, Step, Switch
from desired.network.trace.told import Evidence
from desired.network.words import Names
from desired.resource import Resource, ResourceId, Resources

_ROUTERS = frozenset({Owner.ROUTER_INTERFACE, Owner.ROUTER_GATEWAY})
_SHOWN = 3
"""Things that are not as declared which one hop lists."""

_Key = tuple[str, int, frozenset[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Scene:
    """`wrong` says of what is not as declared why. `switch` is what was asked first."""

    names: Names
    resources: Resources
    wrong: Mapping[ResourceId, str]
    switch: Switch = field(default_factory=lambda: Switch({}))

    @property
    def node(self) -> str:
        return self.names.node

    @property
    def topology(self) -> Topology:
        return self.names.topology

    def ports(self) -> Iterator[Port]:
        for network in self.topology.networks.values():
            yield from network.ports

    def network(self, port: Port) -> Network:
        return self.topology.networks[port.network]

    def router_of(self, port: Port) -> Router | None:
        return self.topology.routers.get(port.device) if port.owner in _ROUTERS else None

    def device_of(self, port: Port) -> Device | None:
        """The device of a port on this node: by its iface-id, else by its name."""
        return self.switch.of_port(port.id) or self.switch.devices.get(device_name(port))

    def evidence(self, rid: ResourceId, text: str = "") -> Evidence:
        """A declared thing as evidence; `text` is what is really there."""
        resource = self.resources.get(rid)
        origin = str(resource.origin) if resource is not None else ""
        return Evidence(text or str(rid), str(rid), origin, self.wrong.get(rid, ""))

    def not_right(self, concerns: Callable[[ResourceId], bool], *, first: Iterable[str] = ()) -> tuple[str, ...]:
        """Sentences on what is not as declared: in the order of `first` what mentions these, what only waits last."""
        words = tuple(first)

        def rank(rid: ResourceId) -> int:
            return next((at for at, word in enumerate(words) if word in str(rid)), len(words))

        found = sorted(
            (rid for rid in self.wrong if concerns(rid)),
            key=lambda rid: ("waits for" in self.wrong[rid], rank(rid), rid),
        )
        said = [f"not as declared: {rid}: {self.wrong[rid]}{self._declared(rid)}" for rid in found[:_SHOWN]]
        if len(found) > _SHOWN:
            said.append(f"not as declared either: {len(found) - _SHOWN} more here, see 'reconcile status -v'")
        return tuple(said)

    def _declared(self, rid: ResourceId) -> str:
        resource = self.resources.get(rid)
        return f" (declared at {resource.origin})" if resource is not None else ""

    def flow(self, step: Step) -> Evidence:
        """A flow that a packet met, with what declared it."""
        text = f"{step.bridge}: {self._named(step)}"
        if step.priority < 0:
            return Evidence(text)
        key = (step.table, step.priority, _fields(self._named_match(step)))
        resource = _declared_flows(self.resources.values(), step.bridge).get(key)
        if resource is None:
            return Evidence(text)
        return Evidence(text, str(resource.id), str(resource.origin), self.wrong.get(resource.id, ""))

    def _named(self, step: Step) -> str:
        short = (re.sub(r"^learn\(table=(\d+).*\)$", r"learn(into table \1)", action) for action in step.actions)
        actions = tuple(re.sub(r"\boutput:(\d+)", lambda m: self._out(step, m), action) for action in short)
        return str(Step(step.bridge, step.table, self._named_match(step), step.priority, actions))

    def _out(self, step: Step, found: re.Match[str]) -> str:
        device = self.switch.at(step.bridge, int(found.group(1)))
        return f"output:{device.name}" if device else found.group(0)

    def _named_match(self, step: Step) -> str:
        def named(found: re.Match[str]) -> str:
            device = self.switch.at(step.bridge, int(found.group(1)))
            return f"in_port={device.name}" if device else found.group(0)

        return re.sub(r"\bin_port=(\d+)", named, step.match)


def holder(topology: Topology, network: Network, ip: str) -> Port | None:
    """Who answers for an address in a network: the port that has it, or the router whose floating IP it is."""
    for port in network.ports:
        if any(address.ip == ip for address in port.addresses):
            return port
    for router in topology.routers.values():
        outside = router.gateway
        if outside is not None and outside.network == network.id and any(f.floating == ip for f in router.floating):
            return outside
    return None


def _declared_flows(resources: Iterable[Resource], bridge: str) -> dict[_Key, Resource]:
    found = {}
    for resource in resources:
        if isinstance(resource.spec, FlowSpec) and resource.spec.bridge == bridge:
            head, _ = split_flow(resource.spec.flow)
            parts = dict(part.partition("=")[::2] for part in head.split(","))
            table, priority = parts.pop("table", "0"), parts.pop("priority", "32768")
            rest = ",".join(f"{name}={value}" if value else name for name, value in parts.items() if name)
            found[table, int(priority, 0), _fields(rest)] = resource
    return found


def _fields(match: str) -> frozenset[tuple[str, str]]:
    """A match in a form that can be compared with how ofproto/trace says it."""
    found = set()
    for part in match.replace('"', "").split(","):
        name, _, value = part.partition("=")
        if name == "dl_vlan" and value in {"0xffff", "65535"}:
            name, value = "vlan_tci", "0x0000/0x1fff"
        if re.fullmatch(r"0x[0-9a-f]+", value):
            value = str(int(value, 16))
        if name:
            found.add((name, value))
    return frozenset(found)
