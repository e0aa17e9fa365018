"""What lives in a network namespace, and on the host itself: links, addresses, routes, rules, neighbours, sysctls.

Each is a resource of its own, named after the namespace it is in (`host` is the host). They are written nested, see
`desired.kinds.namespace_section`. The driver and the controller are in `controllers.drivers.netlink` and
`controllers.namespace`.
"""

from __future__ import annotations

import re
import socket
from ipaddress import ip_interface, ip_network
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from desired.kinds.names import InterfaceName, IpAddress, MacAddress, Mtu, OneLine
from desired.resource import ResourceId, Spec
from desired.schema.words import Must

HOST = "host"
DEFAULTS = {4: "0.0.0.0/0", 6: "::/0"}
MAIN = 254
_TABLES = {"main": MAIN, "default": 253, "local": 255}
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.:@+-]*")
_SYSCTL = re.compile(r"net/[A-Za-z0-9_.@+:/-]+")


def _as_the_kernel(ip: str) -> str:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, ip))


def _namespace(name: str) -> str:
    if len(name) > 200 or name in {".", ".."} or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no namespace name: letters, digits and _ . : - @ +, not starting with '-'")
    return name


def _interface_address(text: str) -> str:
    try:
        address = ip_interface(text)
    except ValueError:
        raise ValueError(f"{text!r} is no address; right would be like 10.0.0.1/24 or fd00::1/64") from None
    if "/" not in text:
        raise ValueError(f"{text!r} needs its prefix length, like {text}/24")
    return f"{_as_the_kernel(str(address.ip))}/{address.network.prefixlen}"


def _prefix(text: str) -> str:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no network: {error}") from None
    return f"{_as_the_kernel(str(network.network_address))}/{network.prefixlen}"


def _destination(text: str) -> str:
    return text if text == "default" else _prefix(text)


def _table(value: Any) -> Any:
    return _TABLES.get(value, value) if isinstance(value, str) else value


def _mark(text: str) -> str:
    value, _, mask = text.partition("/")
    try:
        numbers = int(value, 0), int(mask, 0) if mask else 0xFFFFFFFF
    except ValueError:
        raise ValueError(f"{text!r} is no mark; right would be 0x1 or 0x1/0xff") from None
    if not all(0 <= number <= 0xFFFFFFFF for number in numbers):
        raise ValueError(f"{text!r}: a mark and its mask have 32 bits")
    return f"{numbers[0]:#x}/{numbers[1]:#x}"


NamespaceName = Annotated[str, AfterValidator(_namespace), Must("the name of a network namespace")]
CidrAddress = Annotated[str, AfterValidator(_interface_address), Must("an address with its prefix length")]
Prefix = Annotated[str, AfterValidator(_prefix), Must("a network like 10.0.0.0/8")]
Destination = Annotated[str, AfterValidator(_destination), Must("'default' or a network like 10.0.0.0/8")]
Table = Annotated[int, Field(ge=1, le=0xFFFFFFFF)]
Priority = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
FirewallMark = Annotated[str, AfterValidator(_mark), Must("a mark like 0x1 or 0x1/0xff")]
Exclusive = Literal["links", "addresses", "routes", "rules", "neighbours"]


class Inside(Spec):
    """Base of everything that is in a namespace."""

    namespace: NamespaceName

    def container(self) -> tuple[ResourceId, ...]:
        return () if self.namespace == HOST else (ResourceId("namespace", self.namespace),)

    def refs(self) -> tuple[ResourceId, ...]:
        return self.container()


class NamespaceSpec(Spec):
    """A network namespace; `host` is the one the node lives in, where interfaces are only held."""

    kind: ClassVar[str] = "namespace"

    exclusive: tuple[Exclusive, ...] = Field((), description="Of these, what is not declared is removed, too.")
    release: tuple[InterfaceName, ...] = Field(
        (), description="Interfaces that may be changed although they carry the default route or are untouchable."
    )

    @field_validator("exclusive", "release")
    @classmethod
    def _sorted(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(names)))


class VethPeer(BaseModel):
    """The other end of a veth pair. `bridge` is a Linux bridge there; for Open vSwitch declare a system port."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: InterfaceName
    namespace: NamespaceName = HOST
    bridge: InterfaceName | None = None
    mac: MacAddress | None = None


class LinkSpec(Inside):
    """A network device. `existing` ones are made by others and held; `ovs` ones are moved in from the host."""

    kind: ClassVar[str] = "link"

    dev: InterfaceName
    type: Literal["existing", "ovs", "veth", "bridge", "macvlan", "dummy"] = "existing"
    device: InterfaceName | None = Field(None, description="ovs: the name of the port, if it is another one here.")
    peer: VethPeer | None = Field(None, description="veth: the other end.")
    parent: InterfaceName | None = Field(None, description="macvlan: the device of the host that it sits on.")
    macvlan_mode: Literal["bridge", "private", "vepa", "passthru"] = "bridge"
    master: InterfaceName | None = Field(None, description="The Linux bridge of this namespace that it is a port of.")
    mac: MacAddress | None = None
    mtu: Mtu | None = None
    up: bool | None = Field(None, description="Unset: up, unless it is an existing one, which is left as it is.")

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        needs = {"veth": "peer", "macvlan": "parent"}
        for kind, name in (*needs.items(), ("ovs", "device")):
            if getattr(self, name) is not None and self.type != kind:
                raise ValueError(f"{name} is for links of type {kind}; this one is {self.type}")
        missing = needs.get(self.type)
        if missing is not None and getattr(self, missing) is None:
            raise ValueError(f"a {self.type} link needs {missing!r}")
        if self.type == "ovs" and self.namespace == HOST:
            raise ValueError("on the host an Open vSwitch port is where it is made: leave 'type' out to hold it")
        if self.peer is not None and (self.peer.namespace, self.peer.name) == (self.namespace, self.dev):
            raise ValueError("a veth pair has two ends; peer names this one again")
        return self

    @property
    def wants_up(self) -> bool | None:
        return self.up if self.up is not None or self.type == "existing" else True

    @property
    def port(self) -> str:
        """The name that an `ovs` link has in Open vSwitch."""
        return self.device or self.dev

    def refs(self) -> tuple[ResourceId, ...]:
        refs = self.container()
        if self.type == "ovs":
            refs = (*refs, ResourceId("port", self.port))
        if self.peer is not None and self.peer.namespace != HOST:
            refs = (*refs, ResourceId("namespace", self.peer.namespace))
        return refs


class OnLink(Inside):
    """Base of what belongs to one device."""

    dev: InterfaceName

    def refs(self) -> tuple[ResourceId, ...]:
        return (*self.container(), ResourceId("link", f"{self.namespace}/{self.dev}"))


class AddressSpec(OnLink):
    """An address of a device."""

    kind: ClassVar[str] = "address"

    address: CidrAddress
    announce: bool = Field(
        default=False, description="Tell the neighbours (gratuitous ARP, unsolicited NA) when it appears."
    )
    scope: Literal["global", "link", "host"] = "global"


class NextHop(BaseModel):
    """One of several ways of a route. The traffic is shared by `weight`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    via: IpAddress | None = None
    dev: InterfaceName | None = None
    weight: Annotated[int, Field(ge=1, le=256)] = 1
    onlink: bool = False

    @field_validator("via")
    @classmethod
    def _kernel_form(cls, ip: str | None) -> str | None:
        return None if ip is None else _as_the_kernel(ip)

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.via is None and self.dev is None:
            raise ValueError("via and dev are both missing; a next hop needs one of them")
        if self.onlink and (self.via is None or self.dev is None):
            raise ValueError("onlink needs via and dev")
        return self


class RouteSpec(Inside):
    """A route. `default` is IPv4's unless `via` (or that of the first of `hops`) is an IPv6 address; or write ::/0."""

    kind: ClassVar[str] = "route"

    to: Destination
    via: IpAddress | None = None
    dev: InterfaceName | None = None
    hops: tuple[NextHop, ...] = Field((), description="Several next hops (ECMP), instead of via and dev.")
    metric: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = 0
    table: Table = MAIN
    onlink: bool = False
    src: IpAddress | None = None
    type: Literal["unicast", "blackhole", "unreachable", "prohibit", "throw"] = "unicast"

    _names = field_validator("table", mode="before")(_table)

    @field_validator("via", mode="before")
    @classmethod
    def _one_way(cls, via: Any) -> Any:
        if isinstance(via, list | tuple):
            raise ValueError(  # noqa: TRY004 - a mistake of the YAML, which pydantic collects
                "via is one address; several next hops are written as hops: [{via: A}, {via: B, weight: 2}]"
            )
        return via

    @field_validator("via", "src")
    @classmethod
    def _kernel_form(cls, ip: str | None) -> str | None:
        return None if ip is None else _as_the_kernel(ip)

    @model_validator(mode="after")
    def _several_ways(self) -> Self:
        if not self.hops:
            return self
        if self.type != "unicast" or self.via is not None or self.dev is not None or self.onlink:
            raise ValueError("hops stands instead of via, dev and onlink, and for a unicast route only")
        if len(self.hops) < 2:
            raise ValueError("hops has one next hop; write it as via and dev")
        if len({(hop.via, hop.dev) for hop in self.hops}) < len(self.hops):
            raise ValueError("hops has the same next hop twice; give it a weight instead")
        if {":" in hop.via for hop in self.hops if hop.via is not None} - {":" in self.destination}:
            raise ValueError(f"hops has a next hop of another family than the route to {self.destination}")
        return self

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.type == "unicast" and self.via is None and self.dev is None and not self.hops:
            raise ValueError("via and dev are both missing; a route needs one of them, or hops")
        if self.type != "unicast" and (self.via is not None or self.dev is not None):
            raise ValueError(f"via and dev are not for a {self.type} route")
        if self.onlink and (self.via is None or self.dev is None):
            raise ValueError("onlink needs via and dev")
        return self

    @property
    def destination(self) -> str:
        """The prefix that `to` means."""
        if self.to != "default":
            return self.to
        first = self.hops[0].via if self.hops else self.via
        return DEFAULTS[6 if ":" in (first or "") else 4]

    def refs(self) -> tuple[ResourceId, ...]:
        devices = dict.fromkeys(dev for dev in (self.dev, *(hop.dev for hop in self.hops)) if dev is not None)
        return (*self.container(), *(ResourceId("link", f"{self.namespace}/{dev}") for dev in devices))


_FROM: Any = {"from": (Prefix | None, Field(None, description="Source network."))}
"""A field of that name cannot be written as one in Python."""

_WithFrom = create_model("_WithFrom", __base__=Inside, **_FROM)


class RuleSpec(_WithFrom):
    """A policy rule: which table is asked for which packets. Its family follows from its networks."""

    kind: ClassVar[str] = "policy_rule"

    to: Prefix | None = None
    fwmark: FirewallMark | None = None
    iif: InterfaceName | None = None
    oif: InterfaceName | None = None
    table: Table = MAIN
    priority: Priority
    action: Literal["lookup", "blackhole", "unreachable", "prohibit"] = "lookup"
    family: Literal["inet", "inet6"] | None = Field(None, description="Unset: that of its networks, else inet.")

    _names = field_validator("table", mode="before")(_table)

    @property
    def source(self) -> str | None:
        found: str | None = getattr(self, "from")
        return found

    @property
    def v6(self) -> bool:
        return self.family == "inet6" or ":" in (self.source or "") or ":" in (self.to or "")

    @model_validator(mode="after")
    def _one_family(self) -> Self:
        found = {":" in network for network in (self.source, self.to) if network is not None}
        if self.family is not None:
            found.add(self.family == "inet6")
        if len(found) > 1:
            raise ValueError("from, to and family are not all of one family")
        return self


class NeighbourSpec(OnLink):
    """A permanent neighbour."""

    kind: ClassVar[str] = "neighbour"

    ip: IpAddress
    mac: MacAddress

    @field_validator("ip")
    @classmethod
    def _kernel_form(cls, ip: str) -> str:
        return _as_the_kernel(ip)


class SysctlSpec(Inside):
    """A kernel setting below net/, held: ``net.ipv4.ip_forward`` or, where a name has dots, with slashes instead."""

    kind: ClassVar[str] = "sysctl"

    key: OneLine
    value: OneLine

    @field_validator("key")
    @classmethod
    def _path(cls, key: str) -> str:
        path = key if "/" in key else key.replace(".", "/")
        if not _SYSCTL.fullmatch(path) or ".." in path.split("/"):
            raise ValueError(f"{key!r} is no sysctl of a namespace; right would be like net.ipv4.ip_forward")
        return path

    @field_validator("value", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return str(int(value))
        return str(value) if isinstance(value, int) else value

    @field_validator("value")
    @classmethod
    def _spaces(cls, value: str) -> str:
        if value in {"true", "false"}:
            return "1" if value == "true" else "0"
        return " ".join(value.split())


KINDS: tuple[type[Spec], ...] = (
    NamespaceSpec, LinkSpec, AddressSpec, RouteSpec, RuleSpec, NeighbourSpec, SysctlSpec,
)  # fmt: skip


def resource_name(spec: Spec, name: str = "") -> str:  # noqa: PLR0911 - one for each kind
    """The name of a resource of one of these kinds; `name` is a namespace's own."""
    match spec:
        case LinkSpec():
            return f"{spec.namespace}/{spec.dev}"
        case AddressSpec():
            return f"{spec.namespace}/{spec.dev}/{spec.address}"
        case RouteSpec():
            return route_name(spec.namespace, spec.destination, spec.table, spec.metric)
        case RuleSpec():
            return f"{spec.namespace}/{rule_name(spec)}"
        case NeighbourSpec():
            return f"{spec.namespace}/{spec.dev}/{spec.ip}"
        case SysctlSpec():
            return f"{spec.namespace}/{spec.key.replace('/', '.')}"
    return name


def route_name(namespace: str, to: str, table: int, metric: int) -> str:
    shown = "default" if to == DEFAULTS[4] else to
    return f"{namespace}/{shown}{'' if table == MAIN else f'@{table}'}{f'#{metric}' if metric else ''}"


def rule_name(spec: RuleSpec) -> str:
    words = [str(spec.priority)]
    parts = {"from": spec.source, "to": spec.to, "fwmark": spec.fwmark, "iif": spec.iif, "oif": spec.oif}
    words += [f"{name}:{value}" for name, value in parts.items() if value is not None]
    return ",".join(words) + (",inet6" if spec.family == "inet6" and not (spec.source or spec.to) else "")
