"""Open vSwitch as OVSDB describes it: bridges, ports, bonds, and attributes held on ports that others plugged."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from desired.kinds.names import InterfaceName, IpAddress, MacAddress, Mtu, StringMap, VlanId
from desired.resource import ResourceId, Spec

MARK = "reconciler"
"""The key in `external_ids` that carries our mark; users may not set it."""

SPOKEN = "OpenFlow14"
"""The OpenFlow version the daemon itself speaks."""

Protocol = Literal["OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15"]
VlanMode = Literal["access", "native-tagged", "native-untagged", "trunk", "dot1q-tunnel"]
TUNNELS = frozenset({"gre", "vxlan", "geneve"})


def _without_mark(ids: dict[str, str]) -> dict[str, str]:
    if MARK in ids:
        raise ValueError(f"external_ids:{MARK} is the daemon's own mark; choose another key")
    return ids


class BridgeSpec(Spec):
    """An Open vSwitch bridge. `datapath_type` unset means the node's default (setting `datapath_type`)."""

    kind: ClassVar[str] = "bridge"

    fail_mode: Literal["secure", "standalone"] = "secure"
    datapath_type: Literal["system", "netdev"] | None = None
    protocols: tuple[Protocol, ...] | None = Field(None, description="Unset: what Open vSwitch allows by default.")
    other_config: StringMap = Field(default_factory=dict, description="Held whole: other keys are removed.")
    external_ids: StringMap = Field(default_factory=dict, description="These keys are held; others' keys stay.")
    mac: MacAddress | None = None
    mtu: Mtu | None = None
    flows: Literal["exclusive", "shared"] = Field("exclusive", description="exclusive: a foreign flow is drift.")
    ports: Literal["exclusive", "shared"] = Field("shared", description="exclusive: a foreign port is removed.")

    _ids = field_validator("external_ids")(_without_mark)

    @field_validator("protocols")
    @classmethod
    def _speaks(cls, protocols: tuple[Protocol, ...] | None) -> tuple[Protocol, ...] | None:
        if protocols is not None and SPOKEN not in protocols:
            raise ValueError(f"without {SPOKEN} the daemon could not speak to the bridge; add {SPOKEN}")
        return protocols if protocols is None else tuple(sorted(set(protocols)))


class VlanAttributes(Spec):
    """What a port says about VLANs, on a port of ours as on a bond."""

    tag: VlanId | None = None
    trunks: tuple[VlanId, ...] = ()
    vlan_mode: VlanMode | None = None
    other_config: StringMap = Field(default_factory=dict, description="Port.other_config, held whole.")
    external_ids: StringMap = Field(default_factory=dict, description="Port.external_ids: these keys are held.")

    _ids = field_validator("external_ids")(_without_mark)

    @field_validator("trunks")
    @classmethod
    def _sorted(cls, trunks: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(trunks)))


class PortSpec(VlanAttributes):
    """A port with one interface. `peer` is for patch, `key`/`local_ip`/`remote_ip` for gre, vxlan and geneve.

    Interface.options is what these make of it plus `options`, and is held whole.
    """

    kind: ClassVar[str] = "port"

    bridge: InterfaceName
    type: Literal["internal", "system", "patch", "gre", "vxlan", "geneve"] = "internal"
    peer: InterfaceName | None = None
    local_ip: IpAddress | Literal["flow"] | None = None
    remote_ip: IpAddress | Literal["flow"] | None = None
    key: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] | Literal["flow"] | None = None
    options: StringMap = Field(default_factory=dict)
    mac: MacAddress | None = None
    mtu: Mtu | None = None
    ofport_request: Annotated[int, Field(ge=1, le=65279)] | None = None
    interface_external_ids: StringMap = Field(default_factory=dict, description="Interface.external_ids (iface-id…).")

    _iface_ids = field_validator("interface_external_ids")(_without_mark)

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        if self.type == "patch" and self.peer is None:
            raise ValueError("a patch port needs 'peer', the name of the port it is joined to")
        if self.type != "patch" and self.peer is not None:
            raise ValueError(f"peer is for patch ports; this port is {self.type}")
        tunnel_only = [n for n in ("local_ip", "remote_ip", "key") if getattr(self, n) is not None]
        if tunnel_only and self.type not in TUNNELS:
            raise ValueError(f"{', '.join(tunnel_only)} is for {', '.join(sorted(TUNNELS))}; this port is {self.type}")
        if self.type in TUNNELS and self.remote_ip is None and "remote_ip" not in self.options:
            raise ValueError(f"a {self.type} port needs 'remote_ip' (an address, or flow)")
        taken = {"peer", "local_ip", "remote_ip", "key"} & set(self.options)
        doubled = sorted(name for name in taken if getattr(self, name) is not None)
        if doubled:
            raise ValueError(f"{', '.join(doubled)} is given twice, also in 'options'")
        return self

    def refs(self) -> tuple[ResourceId, ...]:
        return (ResourceId("bridge", self.bridge),)

    def interface_options(self) -> dict[str, str]:
        """Interface.options as OVSDB has it, from the named fields and `options`."""
        named = {"peer": self.peer, "local_ip": self.local_ip, "remote_ip": self.remote_ip, "key": self.key}
        return {**self.options, **{name: str(value) for name, value in named.items() if value is not None}}


class BondSpec(VlanAttributes):
    """A port with several interfaces."""

    kind: ClassVar[str] = "bond"

    bridge: InterfaceName
    interfaces: tuple[InterfaceName, ...] = Field(min_length=2)
    bond_mode: Literal["active-backup", "balance-slb", "balance-tcp"] = "active-backup"
    lacp: Literal["active", "passive", "off"] = "off"

    @field_validator("interfaces")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("an interface is named twice")
        return tuple(sorted(names))

    def refs(self) -> tuple[ResourceId, ...]:
        return (ResourceId("bridge", self.bridge),)


class HeldPortSpec(Spec):
    """Attributes of a port that somebody else plugged, selected by Interface.external_ids:iface-id (the key in YAML).

    It is never created and never deleted; what is not declared here is left alone.
    """

    kind: ClassVar[str] = "held_port"

    awaited: bool = Field(
        default=True,
        description="false: while nobody has plugged it nothing is missing, as of an instance that is off.",
    )
    tag: VlanId | None = None
    other_config: StringMap = Field(default_factory=dict, description="These keys are held.")
    external_ids: StringMap = Field(default_factory=dict, description="Port.external_ids: these keys are held.")

    _ids = field_validator("external_ids")(_without_mark)
