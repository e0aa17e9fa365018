"""What a trace says: hops, each with its evidence, and how it ends. Plain data, for text and JSON alike."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class Packet:
    """What is sent. `port` is 0 for ICMP; `translated`: its destination was changed on the way."""

    source: str
    to: str
    protocol: str = "icmp"
    port: int = 0
    translated: bool = False

    @property
    def version(self) -> int:
        return ip_address(self.to).version

    def headed(self, to: str, port: int) -> Packet:
        return replace(self, to=to, port=port, translated=True)

    def words(self) -> str:
        what = {"icmp": "a ping"}.get(self.protocol, f"{self.protocol.upper()} to port {self.port}")
        return f"{what} from {self.source} to {self.to}" if self.source else f"{what} to {self.to}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What decided: a flow, a route, a rule. `origin`: where it was declared, if it was; `wrong`: what is not right."""

    text: str
    resource: str = ""
    origin: str = ""
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """One thing that happens to the packet. `missing`: what is not there and ends its way; `doubts` do not end it."""

    sentence: str
    evidence: tuple[Evidence, ...] = ()
    missing: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Traced:
    """The whole way. `node` and `command` say where to ask on, when the packet leaves for another node."""

    packet: Packet
    hops: tuple[Hop, ...]
    arrives: bool
    end: str
    node: str = ""
    command: str = ""


@dataclass(slots=True)
class Diary:
    """Collects the hops of one trace."""

    hops: list[Hop] = field(default_factory=list)

    def tell(
        self,
        sentence: str,
        *evidence: Evidence,
        missing: tuple[str, ...] = (),
        doubts: tuple[str, ...] = (),
    ) -> bool:
        """Add a hop; True when nothing is missing, so that the packet goes on."""
        self.hops.append(Hop(sentence, evidence, missing, doubts))
        return not missing
