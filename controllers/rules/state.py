"""What the rules controller knows in a pass, and its actions. Shared by all modules of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controllers.drivers.iptables.rules import ChainKey, Held, Text
from desired.resource import ResourceId

Spot = tuple[ChainKey, str]
"""A rule by its chain and intent hash; with '' the chain as such. What a focus is made of."""


class Want(NamedTuple):
    """A declared rule, in its chain of ours. `forms` are those of the rules it makes, sorted: mostly one.

    `body` is the rule as the fast path sends it; empty where it makes several, and with iptables-legacy.
    """

    resource: ResourceId
    mark: str
    forms: tuple[bytes, ...]
    text: Text
    body: bytes = b""


class Jump(NamedTuple):
    """The one rule in a chain of the kernel that leads into ours. `resource` is who is told when it is not right."""

    own: ChainKey
    kernel: ChainKey
    first: bool
    mark: str
    form: bytes
    text: Text
    resource: ResourceId
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is declared for one namespace. Each chain's rules are in their order; `jumps` are by our chain."""

    chains: Mapping[ChainKey, tuple[Want, ...]] = field(default_factory=dict)
    jumps: Mapping[ChainKey, Jump] = field(default_factory=dict)
    invalid: Mapping[ResourceId, str] = field(default_factory=dict)
    spots: Mapping[Spot, ResourceId] = field(default_factory=dict)
    ids: Mapping[ChainKey, list[tuple[str, bytes]]] = field(default_factory=dict)
    """For each chain (mark, form) of every rule, in order: equal to what is there when all is well."""
    kernel: Mapping[ChainKey, tuple[Jump, ...]] = field(default_factory=dict)
    """Jumps by the kernel's chain."""
    at: Mapping[Spot, int] = field(default_factory=dict)
    """Each rule's place in its chain."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is there, what is wanted, and where to look (`spots`; None is everywhere).

    `forms` are rules that this kernel shows in another form than the canonicaliser: mark -> (canonical, shown).
    `names` are rules that were declared once, for the journal.
    """

    namespace: str
    held: Mapping[ChainKey, list[Held]]
    wanted: Wanted
    spots: frozenset[Spot] | None = None
    forms: Mapping[str, tuple[tuple[bytes, ...], tuple[bytes, ...]]] = field(default_factory=dict)
    names: Mapping[str, ResourceId] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Put:
    """Make these rules of one resource, and these jumps, be there and in their place."""

    spots: tuple[Spot, ...] = ()
    jumps: tuple[ChainKey, ...] = ()


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete rules of our chains that are not declared: the one of this mark and form, as often as it is there."""

    chain: ChainKey
    mark: str
    form: bytes


@dataclass(frozen=True, slots=True)
class DropChain:
    """Delete an empty chain of ours and what jumps into it."""

    chain: ChainKey


Action = Put | Drop | DropChain
