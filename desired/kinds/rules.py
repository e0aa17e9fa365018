"""NAT and filter rules of a network namespace, or of the host: readable forms, and raw rules in iptables syntax.

Each spec says with `rules()` which rules of iptables it is; what these mean is asked of iptables itself, by the
driver. The section `rules` of a document is in `desired.kinds.rules_section`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator, model_validator

from desired.kinds.names import InterfaceName, IpAddress, OneLine
from desired.kinds.namespace import HOST, NamespaceName
from desired.kinds.rule_text import chain_name, split_rule
from desired.resource import ResourceId, Spec
from desired.schema.words import Must

KERNEL_CHAINS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
TABLES: dict[str, tuple[str, ...]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": KERNEL_CHAINS,
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
"""Tables, with the chains that the kernel has in them."""

Family = Literal["ipv4", "ipv6"]
Table = Literal["raw", "mangle", "nat", "filter", "security"]
Place = Literal["first", "before_reject"]
Protocol = Literal["tcp", "udp", "sctp", "udplite", "dccp"]
Port = Annotated[int, Field(ge=1, le=65535)]


class Rule(NamedTuple):
    """One rule of iptables: where it stands, and its tokens without command and chain."""

    family: Family
    table: Table
    chain: str
    tokens: tuple[str, ...]
    place: Place = "first"


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=True))
    except ValueError as error:
        raise ValueError(f"{text!r} is no address or network like 10.0.0.0/24: {error}") from None


def _ports(text: str) -> str:
    first, colon, last = text.partition(":")
    numbers = [first, last] if colon else [first]
    if not all(number.isascii() and number.isdigit() and 0 < int(number) < 65536 for number in numbers):
        raise ValueError(f"{text!r} is no port (1 to 65535) and no range of ports like 5900:5999")
    if colon and int(first) >= int(last):
        raise ValueError(f"{text!r} is an empty range of ports; write the smaller one first")
    return text


Network = Annotated[str, AfterValidator(_network), Must("an address or a network like 10.0.0.0/24")]
Ports = Annotated[
    str,
    AfterValidator(_ports),
    Must("a port, or a range of ports like 5900:5999"),
    WithJsonSchema({"type": ["string", "integer"]}),
]


def family_of(address: str) -> Family:
    """The family of an address or network."""
    return "ipv4" if ip_address(address.partition("/")[0]).version == 4 else "ipv6"


def _one_family(*addresses: str | None) -> Family | None:
    families = {family_of(address) for address in addresses if address is not None}
    if len(families) > 1:
        raise ValueError("mixes IPv4 and IPv6 addresses; a rule is of one family")
    return families.pop() if families else None


def _host(address: str) -> str:
    return f"{address}/{32 if family_of(address) == 'ipv4' else 128}"


def _to(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"{address}:{port}" if family_of(address) == "ipv4" else f"[{address}]:{port}"


class RuleSpec(Spec):
    """What every form has. `rank` orders the forms within a chain: raw rules come first, wide SNAT comes last."""

    rank: ClassVar[int]

    namespace: NamespaceName

    @abstractmethod
    def rules(self) -> Iterator[Rule]:
        """The rules of iptables that this is."""

    @abstractmethod
    def words(self) -> str:
        """What names it within its namespace and form."""

    def place_in_order(self) -> tuple[int, int, str]:
        """Sorts the rules of a chain: by form, then what a form says, then by name."""
        return self.rank, 0, self.words()

    def refs(self) -> tuple[ResourceId, ...]:
        return () if self.namespace == HOST else (ResourceId("namespace", self.namespace),)


class RawRuleSpec(RuleSpec):
    """A rule in iptables syntax, without command, table and chain: ``-s 10.0.0.0/24 -j ACCEPT``."""

    kind: ClassVar[str] = "rule"
    rank: ClassVar[int] = 0

    table: Table
    chain: OneLine
    rule: OneLine
    family: Family = "ipv4"
    place: Place = Field("first", description="Of the kernel's chain: at its head, or before its final REJECT.")
    order: int = Field(0, ge=0, description="Place among the raw rules of its chain; normally its place in the list.")

    @model_validator(mode="after")
    def _stands(self) -> Self:
        if self.chain in KERNEL_CHAINS:
            if self.chain not in TABLES[self.table]:
                raise ValueError(
                    f"table {self.table} has no chain {self.chain}; it has {', '.join(TABLES[self.table])}"
                )
        else:
            chain_name(self.chain)
            if self.place != "first":
                raise ValueError("'place' is for rules of the kernel's chains")
        return self

    @field_validator("rule")
    @classmethod
    def _syntax(cls, rule: str) -> str:
        split_rule(rule)
        return rule

    def rules(self) -> Iterator[Rule]:
        yield Rule(self.family, self.table, self.chain, split_rule(self.rule), self.place)

    def words(self) -> str:
        six = "" if self.family == "ipv4" else "ipv6 "
        return f"{six}{self.table} {self.chain} {self.rule}"

    def place_in_order(self) -> tuple[int, int, str]:
        return self.rank, self.order, self.words()


class SnatSpec(RuleSpec):
    """Packets from `source` that leave by `out` get `to` as their source address. One of the two must be there."""

    kind: ClassVar[str] = "snat"
    rank: ClassVar[int] = 40

    source: Network | None = None
    out: InterfaceName | None = None
    to: IpAddress

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _one_family(self.source, self.to)
        if self.source is None and self.out is None:
            raise ValueError("needs 'source', 'out' or both; without them everything would be translated")
        return self

    def rules(self) -> Iterator[Rule]:
        tokens = (*_from(self.source, self.out), "-j", "SNAT", "--to-source", self.to)
        yield Rule(family_of(self.to), "nat", "POSTROUTING", tokens)

    def words(self) -> str:
        return f"{_shown(self.source, self.out)} to {self.to}"

    def place_in_order(self) -> tuple[int, int, str]:
        return self.rank, _width(self.source), self.words()


def _from(source: str | None, out: str | None) -> Iterator[str]:
    if source is not None:
        yield from ("-s", source)
    if out is not None:
        yield from ("-o", out)


def _width(source: str | None) -> int:
    """How much a source covers: narrow ones are looked at first."""
    return 129 if source is None else ip_network(source).max_prefixlen - ip_network(source).prefixlen


def _shown(source: str | None, out: str | None) -> str:
    return " ".join(word for word in (source, out and f"out {out}") if word)


class MasqueradeSpec(RuleSpec):
    """Packets from `source` that leave by `out` get the address of that interface."""

    kind: ClassVar[str] = "masquerade"
    rank: ClassVar[int] = 50

    source: Network | None = None
    out: InterfaceName | None = None
    family: Family | None = Field(None, description="Unset: that of `source`, or ipv4.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.source is None and self.out is None:
            raise ValueError("needs 'source', 'out' or both; without them everything would be translated")
        if self.source is not None and self.family not in {None, family_of(self.source)}:
            raise ValueError(f"'source' is {family_of(self.source)} and 'family' is {self.family}")
        return self

    def rules(self) -> Iterator[Rule]:
        family = self.family or _one_family(self.source) or "ipv4"
        yield Rule(family, "nat", "POSTROUTING", (*_from(self.source, self.out), "-j", "MASQUERADE"))

    def words(self) -> str:
        six = "ipv6 " if self.family == "ipv6" and self.source is None else ""
        return f"{six}{_shown(self.source, self.out)}"

    def place_in_order(self) -> tuple[int, int, str]:
        return self.rank, _width(self.source), self.words()


class FloatingIpSpec(RuleSpec):
    """A floating address stands for a fixed one, in both directions, and for what the router itself sends to it."""

    kind: ClassVar[str] = "floating_ip"
    rank: ClassVar[int] = 30

    floating: IpAddress
    fixed: IpAddress

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _one_family(self.floating, self.fixed)
        return self

    def rules(self) -> Iterator[Rule]:
        family = family_of(self.floating)
        there = ("-d", _host(self.floating), "-j", "DNAT", "--to-destination", self.fixed)
        yield Rule(family, "nat", "PREROUTING", there)
        yield Rule(family, "nat", "OUTPUT", there)
        back = ("-s", _host(self.fixed), "-j", "SNAT", "--to-source", self.floating)
        yield Rule(family, "nat", "POSTROUTING", back)

    def words(self) -> str:
        return self.floating


class PortForwardSpec(RuleSpec):
    """A port of `address` leads to `to`, at `to_port` if that differs."""

    kind: ClassVar[str] = "port_forward"
    rank: ClassVar[int] = 20

    address: IpAddress
    protocol: Protocol = "tcp"
    port: Port
    to: IpAddress
    to_port: Port | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _one_family(self.address, self.to)
        return self

    def rules(self) -> Iterator[Rule]:
        tokens = (
            "-d", _host(self.address), "-p", self.protocol, "--dport", str(self.port),
            "-j", "DNAT", "--to-destination", _to(self.to, self.to_port),
        )  # fmt: skip
        for chain in ("PREROUTING", "OUTPUT"):
            yield Rule(family_of(self.address), "nat", chain, tokens)

    def words(self) -> str:
        return f"{self.address} {self.protocol} {self.port}"


class RedirectSpec(RuleSpec):
    """A port of `destination` is answered by the machine itself, at `to_port` (the metadata proxy)."""

    kind: ClassVar[str] = "redirect"
    rank: ClassVar[int] = 10

    destination: IpAddress
    protocol: Protocol = "tcp"
    port: Port
    to_port: Port
    into: InterfaceName | None = Field(None, description="Only what comes in here.")

    def rules(self) -> Iterator[Rule]:
        comes = () if self.into is None else ("-i", self.into)
        tokens = (
            *comes, "-d", _host(self.destination), "-p", self.protocol, "--dport", str(self.port),
            "-j", "REDIRECT", "--to-ports", str(self.to_port),
        )  # fmt: skip
        yield Rule(family_of(self.destination), "nat", "PREROUTING", tokens)

    def words(self) -> str:
        return f"{self.destination} {self.protocol} {self.port}" + (f" into {self.into}" if self.into else "")


class OpenPortSpec(RuleSpec):
    """Ports of the machine that are open, for `source` or for everybody: accepted before INPUT's final REJECT."""

    kind: ClassVar[str] = "open_port"
    rank: ClassVar[int] = 60

    protocol: Protocol = "tcp"
    ports: tuple[Ports, ...]
    source: Network | None = None
    comment: Annotated[OneLine, Field(max_length=100)] = Field("", description="Why it is open; kept in the rule.")

    @field_validator("ports", mode="before")
    @classmethod
    def _texts(cls, ports: object) -> object:
        return [str(port) if isinstance(port, int) else port for port in ports] if isinstance(ports, list) else ports

    @field_validator("ports")
    @classmethod
    def _few(cls, ports: tuple[str, ...]) -> tuple[str, ...]:
        if not ports:
            raise ValueError("needs at least one port, like [6082]")
        if sum(2 if ":" in port else 1 for port in ports) > 15:
            raise ValueError("at most 15 ports fit into one rule (a range counts twice); make two entries of them")
        return ports

    def rules(self) -> Iterator[Rule]:
        comes = () if self.source is None else ("-s", self.source)
        comment = ("-m", "comment", "--comment", self.comment) if self.comment else ()
        ports = ("-m", "multiport", "--dports", ",".join(self.ports))
        tokens = (*comes, "-p", self.protocol, *ports, *comment, "-j", "ACCEPT")
        families: tuple[Family, ...] = ("ipv4", "ipv6") if self.source is None else (family_of(self.source),)
        for family in families:
            yield Rule(family, "filter", "INPUT", tokens, "before_reject")

    def words(self) -> str:
        return f"{self.protocol} {','.join(self.ports)}" + (f" from {self.source}" if self.source else "")


SPECS: tuple[type[RuleSpec], ...] = (
    RawRuleSpec,
    RedirectSpec,
    PortForwardSpec,
    FloatingIpSpec,
    SnatSpec,
    MasqueradeSpec,
    OpenPortSpec,
)
