"""What the network model may hold: nodes, networks, subnets, ports, routers, floating IPs, and options for all of them.

Each is a `Spec`, so that an object has a place where it was declared (`Resource.origin`), a generation, and a source.
Objects of YAML are named by the operator and get their id from that name unless one is written; objects of OpenStack
are named by their id and carry their display name. A reference is a name or an id. Compiled by `desired.network`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address, ip_network
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import NAMESPACE_DNS, UUID, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from desired.kinds.names import InterfaceName, IpAddress, MacAddress, Mtu, OneLine
from desired.resource import Resource, ResourceId, Spec
from desired.schema.words import Must

_IDS = uuid5(NAMESPACE_DNS, "model.reconciler")

NetworkType = Literal["gre", "vxlan", "geneve", "vlan", "flat", "local"]
TUNNELLED = frozenset({"gre", "vxlan", "geneve"})
HOSTS_CHOOSE = 64
"""The prefix of a subnet in which hosts make their own IPv6 addresses (RFC 4862)."""
LARGEST_SEGMENT = {"gre": 0xFFFFFFFF, "vxlan": 0xFFFFFF, "geneve": 0xFFFFFF, "vlan": 4094}


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise ValueError(f"{text!r} is no id; right would be like 6f1c3b5a-9e40-4a52-8c1d-0b7e5a91d301") from None


def _cidr(text: str) -> str:
    try:
        right = str(ip_network(text, strict=False))
    except ValueError as error:
        raise ValueError(f"{text!r} is no subnet like 10.0.0.0/24: {error}") from None
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError(f"{text!r} is an address in a subnet, not the subnet; right would be {right}") from None


Id = Annotated[str, AfterValidator(_uuid), Must("an id like 6f1c3b5a-9e40-4a52-8c1d-0b7e5a91d301")]
Cidr = Annotated[str, AfterValidator(_cidr), Must("a subnet like 10.0.0.0/24")]
Name = Annotated[OneLine, Field(min_length=1), Must("a name")]
Role = Literal["controller", "network", "compute"]


class Part(BaseModel):
    """Base of what is written inside an object."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class Layout(StrEnum):
    """How br-int and br-tun are laid out in flow tables: as until 2013.1, or as from 2014.2 on."""

    SINGLE_TABLE = "single-table"
    MULTI_TABLE = "multi-table"


class MetadataSettings(Part):
    """Who answers instances at 169.254.169.254: a proxy in each router's or DHCP's namespace that asks `upstream`."""

    upstream: OneLine = Field(description="A unix socket (/var/lib/neutron/metadata_proxy) or ADDRESS:PORT.")
    port: Annotated[int, Field(ge=1, le=65535)] = 9697


class OptionsSpec(Spec):
    """What holds for the whole model. There is one of it, named ``options``."""

    kind: ClassVar[str] = "model_options"
    word: ClassVar[str] = "options"

    layout: Layout = Layout.MULTI_TABLE
    integration_bridge: InterfaceName = "br-int"
    tunnel_bridge: InterfaceName = "br-tun"
    vxlan_port: Annotated[int, Field(ge=1, le=65535)] = 4789
    dns_domain: Name = "openstacklocal"
    dhcp_servers: Annotated[int, Field(ge=1, le=8)] = Field(1, description="DHCP servers for each network.")
    dhcp_lease: Annotated[int, Field(ge=60)] = Field(86400, description="Seconds.")
    metadata: MetadataSettings | None = None


class NodeSpec(Spec):
    """A machine of the cluster. `tunnel_ip` is its address on the underlay."""

    kind: ClassVar[str] = "node"

    roles: tuple[Role, ...] = Field(min_length=1)
    tunnel_ip: IpAddress | None = None
    bridge_mappings: dict[Name, InterfaceName] = Field(
        default_factory=dict, description="Bridge of each physical network here, as in {physnet1: br-ex}."
    )
    bridge_interfaces: dict[InterfaceName, InterfaceName] = Field(
        default_factory=dict, description="The NIC that is a port of such a bridge, as in {br-ex: eth2}."
    )

    @field_validator("roles")
    @classmethod
    def _sorted(cls, roles: tuple[Role, ...]) -> tuple[Role, ...]:
        return tuple(sorted(set(roles)))

    @model_validator(mode="after")
    def _bridges_are_mapped(self) -> Self:
        unknown = sorted(set(self.bridge_interfaces) - set(self.bridge_mappings.values()))
        if unknown:
            raise ValueError(f"bridge_interfaces names {unknown[0]}, which no physical network is mapped to")
        return self


class ObjectSpec(Spec):
    """Base of what has an id in Neutron."""

    id: Id | None = Field(None, description="Unset: made from the name, always the same.")
    display: OneLine = Field("", description="What people call it, if that is not its name here.")


class NetworkSpec(ObjectSpec):
    """A layer-2 network."""

    kind: ClassVar[str] = "network"

    type: NetworkType = "vxlan"
    segmentation_id: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] | None = None
    physical_network: Name | None = None
    external: bool = False
    shared: bool = False
    mtu: Mtu | None = None

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        largest = LARGEST_SEGMENT.get(self.type)
        if largest is None and self.segmentation_id is not None:
            raise ValueError(f"segmentation_id is not for a {self.type} network")
        if largest is not None and self.segmentation_id is None:
            raise ValueError(f"a {self.type} network needs segmentation_id (1 to {largest})")
        if largest is not None and not 1 <= (self.segmentation_id or 0) <= largest:
            raise ValueError(f"segmentation_id of a {self.type} network must be 1 to {largest}")
        physical = self.type in {"vlan", "flat"}
        if physical and self.physical_network is None:
            raise ValueError(f"a {self.type} network needs physical_network, as in a node's bridge_mappings")
        if not physical and self.physical_network is not None:
            raise ValueError(f"physical_network is for vlan and flat networks; this one is {self.type}")
        return self


class Pool(Part):
    """Addresses that may be given to ports, both ends included."""

    start: IpAddress
    end: IpAddress

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        first, last = ip_address(self.start), ip_address(self.end)
        if first.version != last.version or int(first) > int(last):
            raise ValueError(f"start and end are no range: {self.start} to {self.end}")
        return self


class Via(Part):
    """A static route: of a subnet's hosts, or of a router."""

    to: Cidr
    via: IpAddress

    @model_validator(mode="after")
    def _one_version(self) -> Self:
        if ip_network(self.to).version != ip_address(self.via).version:
            raise ValueError(f"to and via must both be IPv4 or both IPv6, not {self.to} via {self.via}")
        return self

    @property
    def ends(self) -> tuple[str, str]:
        """The address of where it leads, and the next hop."""
        return self.to.partition("/")[0], self.via


class SubnetSpec(ObjectSpec):
    """Addresses of a network. `gateway` unset is the first address; ``none`` means that there is none."""

    kind: ClassVar[str] = "subnet"

    network: Name
    cidr: Cidr
    gateway: IpAddress | Literal["none"] | None = None
    allocation_pools: tuple[Pool, ...] = Field((), description="Unset: all of it but the gateway.")
    dns: tuple[IpAddress, ...] = ()
    host_routes: tuple[Via, ...] = ()
    dhcp: bool = True
    dhcp_addresses: tuple[IpAddress, ...] = Field((), description="Of its DHCP servers. Unset: the pool's last ones.")
    ipv6_mode: Literal["slaac", "dhcpv6-stateless", "dhcpv6-stateful"] | None = None

    @model_validator(mode="after")
    def _inside(self) -> Self:
        network = ip_network(self.cidr)
        named = {"dhcp_addresses": self.dhcp_addresses}
        if self.gateway not in {None, "none"}:
            named["gateway"] = (str(self.gateway),)
        named["allocation_pools"] = tuple(end for pool in self.allocation_pools for end in (pool.start, pool.end))
        for field, addresses in named.items():
            for address in addresses:
                if ip_address(address) not in network and not (
                    field == "gateway" and ip_address(address).is_link_local
                ):
                    raise ValueError(f"{field}: {address} is not in {self.cidr}")
        if self.ipv6_mode is not None and network.version == 4:
            raise ValueError(f"ipv6_mode is for IPv6 subnets; {self.cidr} is IPv4")
        if self.ipv6_mode in {"slaac", "dhcpv6-stateless"} and network.prefixlen != HOSTS_CHOOSE:
            raise ValueError(
                f"ipv6_mode {self.ipv6_mode} needs a /64, in which hosts choose addresses; not {self.cidr}"
            )
        spoken = {"dns": self.dns, "host_routes": tuple(each for route in self.host_routes for each in route.ends)}
        for field, addresses in spoken.items():
            for address in addresses:
                if ip_address(address).version != network.version:
                    raise ValueError(f"{field}: {address} is not IPv{network.version}, as {self.cidr} is")
        return self

    @model_validator(mode="after")
    def _pools_apart(self) -> Self:
        for one, other in pairwise(sorted(self.allocation_pools, key=lambda pool: int(ip_address(pool.start)))):
            if int(ip_address(other.start)) <= int(ip_address(one.end)):
                ends = f"{one.start} to {one.end} and {other.start} to {other.end}"
                raise ValueError(f"allocation_pools: {ends} share addresses")
        return self

    @property
    def version(self) -> int:
        return ip_network(self.cidr).version

    @property
    def bounds(self) -> tuple[int, int]:
        """Its first and its last address, as numbers."""
        net = ip_network(self.cidr)
        return int(net.network_address), int(net.broadcast_address)

    @property
    def gateway_ip(self) -> str | None:
        """The gateway's address; None when there is none, as in a subnet of a single address."""
        first, last = self.bounds
        if self.gateway == "none" or (self.gateway is None and first == last):
            return None
        return self.gateway or str(ip_network(self.cidr)[1])


class FixedIp(Part):
    """An address of a port; `subnet` is found by the address when it is unset."""

    ip: IpAddress
    subnet: Name | None = None


def _as_parts(field: str) -> Any:
    """A text in the list stands for a mapping with this one field."""

    def coerce(cls: type[BaseModel], value: Any) -> Any:  # noqa: ARG001 (a validator's signature)
        if isinstance(value, list | tuple):
            return [{field: one} if isinstance(one, str) else one for one in value]
        return value

    return classmethod(coerce)


class Owner(StrEnum):
    """What a port is for (Neutron's device_owner, as far as it matters here)."""

    INSTANCE = "instance"
    DHCP = "dhcp"
    ROUTER_INTERFACE = "router_interface"
    ROUTER_GATEWAY = "router_gateway"
    FLOATING_IP = "floating_ip"
    OTHER = "other"


class NeutronPortSpec(ObjectSpec):
    """A port of a network. `plug` says who makes its device: others (Nova), or we, with or without a namespace."""

    kind: ClassVar[str] = "neutron_port"
    word: ClassVar[str] = "port"

    network: Name
    mac: MacAddress | None = Field(None, description="Unset: made from the id, always the same.")
    fixed_ips: tuple[FixedIp, ...] = ()
    node: Name | None = Field(None, description="Where it is plugged (binding:host_id). Unset: nowhere yet.")
    owner: Owner = Owner.INSTANCE
    device: OneLine = Field("", description="Of what it is a port: an instance's or a router's id or name.")
    plug: Literal["held", "internal", "namespace"] = Field(
        "held", description="held: others plug it; internal: a port of ours; namespace: that port in one of its own."
    )

    _texts = field_validator("fixed_ips", mode="before")(_as_parts("ip"))


class RouterInterface(Part):
    """A subnet that a router serves. `ip` unset is the subnet's gateway."""

    subnet: Name
    ip: IpAddress | None = None


class Gateway(Part):
    """A router's way out. `ips` unset: one of the pool's last free addresses."""

    network: Name
    ips: tuple[IpAddress, ...] = ()
    snat: bool = True


class RouterSpec(ObjectSpec):
    """A router. `node` unset: one of the network nodes, always the same while the set of these is."""

    kind: ClassVar[str] = "router"

    interfaces: tuple[RouterInterface, ...] = ()
    gateway: Gateway | None = None
    routes: tuple[Via, ...] = ()
    node: Name | None = None

    _texts = field_validator("interfaces", mode="before")(_as_parts("subnet"))

    @field_validator("gateway", mode="before")
    @classmethod
    def _network(cls, value: Any) -> Any:
        return {"network": value} if isinstance(value, str) else value


class NeutronFloatingIpSpec(ObjectSpec):
    """A floating IP. `port` unset: reserved, and served by nothing."""

    kind: ClassVar[str] = "neutron_floating_ip"
    word: ClassVar[str] = "floating IP"

    floating: IpAddress
    network: Name | None = Field(None, description="Unset: the external network that has the address.")
    port: Name | None = None
    fixed: IpAddress | None = Field(None, description="Which of the port's addresses. Unset: its first.")
    router: Name | None = Field(None, description="Unset: the router between the port's network and the floating one.")


KINDS: tuple[type[Spec], ...] = (
    OptionsSpec, NodeSpec, NetworkSpec, SubnetSpec, NeutronPortSpec, RouterSpec, NeutronFloatingIpSpec,
)  # fmt: skip
KIND_NAMES = frozenset(kind.kind for kind in KINDS)
OPTIONS = ResourceId(OptionsSpec.kind, "options")


def derived_id(kind: str, *names: str) -> str:
    """The id of an object that has none of its own, from what names it. Always the same."""
    return str(uuid5(_IDS, "\0".join((kind, *names))))


def derived_mac(port_id: str) -> str:
    """The MAC address of a port that has none of its own, in Neutron's range."""
    tail = uuid5(_IDS, f"mac\0{port_id}").bytes
    return f"fa:16:3e:{tail[0]:02x}:{tail[1]:02x}:{tail[2]:02x}"


def object_id(resource: Resource) -> str:
    """The Neutron id of a network, subnet, port, router or floating IP."""
    own = getattr(resource.spec, "id", None)
    return own or derived_id(resource.id.kind, resource.id.name)


@dataclass(frozen=True, slots=True)
class Model:
    """All objects, by resource id. Immutable: a change makes another one that shares what did not change."""

    objects: Mapping[ResourceId, Resource]

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Model:
        return cls(MappingProxyType({r.id: r for r in resources if r.id.kind in KIND_NAMES}))

    def __bool__(self) -> bool:
        return bool(self.objects)

    def all(self, kind: type[Spec]) -> Iterator[Resource]:
        """The objects of a kind, in no particular order."""
        return (resource for rid, resource in self.objects.items() if rid.kind == kind.kind)

    @property
    def options(self) -> OptionsSpec:
        found = self.objects.get(OPTIONS)
        if found is None:
            return OptionsSpec()
        assert isinstance(found.spec, OptionsSpec)
        return found.spec
