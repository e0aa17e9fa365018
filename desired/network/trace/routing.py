"""A packet in a router's namespace: translated, routed, filtered, translated; as its rules and routes really are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from desired.kinds.namespace import AddressSpec, RouteSpec
from desired.network import metadata
from desired.network.calling import device_name
from desired.network.topology import Port, Router
from desired.network.trace.netfilter import Rules, Seen, Verdict, read_rules
from desired.network.trace.questions import (
    Asking,
    AskInside,
    AskListening,
    AskRoute,
    AskRules,
    Inside,
    Link,
    Way,
    ask,
)
from desired.network.trace.scene import Scene
from desired.network.trace.told import Diary, Evidence, Packet
from desired.network.words import router_words
from desired.resource import ResourceId

_SOURCE_CHANGED = frozenset({"SNAT", "MASQUERADE"})
_NAT = ("floating_ip", "redirect", "snat", "rule")
_TO_CHANGED = frozenset({"DNAT", "REDIRECT"})


@dataclass(frozen=True, slots=True)
class Onward:
    """It leaves the namespace by a port of the router, for `next_hop`."""

    packet: Packet
    port: Port
    next_hop: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """It has reached who it is for, in the namespace itself."""

    who: str


@dataclass(frozen=True, slots=True)
class _Room:
    """The namespace with what was asked of it once."""

    scene: Scene
    diary: Diary
    router: Router
    dev: str
    inside: Inside
    rules: Rules

    @property
    def name(self) -> str:
        return f"qrouter-{self.router.id}"

    def lost(
        self, sentence: str, *missing: str, evidence: tuple[Evidence, ...] = (), kinds: Iterable[str] = ()
    ) -> None:
        """It ends here. `kinds` of resources that are not as declared are the likeliest reason."""
        self.diary.tell(sentence, *evidence, missing=(*missing, *_wrong(self.scene, self.name, kinds)))

    def judged(self, table: str, chain: str, packet: Packet, leaves: str = "") -> Verdict:
        seen = Seen(packet.source, packet.to, packet.protocol, packet.port, self.dev, leaves, packet.translated)
        return self.rules.judge(table, chain, seen)


def routed(scene: Scene, diary: Diary, router: Router, port: Port, packet: Packet) -> Asking[Onward | Delivered | None]:
    """Follow a packet that has come to a port of a router on this node; None when it gets lost."""
    name, dev = f"qrouter-{router.id}", device_name(port)
    inside = yield from ask(AskInside(name, packet.version))
    missing = tuple(_absent(inside, name, dev, port))
    diary.tell(
        f"namespace {name}: {router_words(router, scene.names)}",
        scene.evidence(ResourceId("namespace", name)),
        missing=(*missing, *(_wrong(scene, name, ("namespace", "link")) if missing else ())),
    )
    if missing:
        return None
    saved = yield from ask(AskRules(name, packet.version))
    room = _Room(scene, diary, router, dev, inside, read_rules(saved))
    translated = _destination(room, packet)
    if translated is None:
        return None
    way = yield from ask(AskRoute(name, translated.to, translated.source, dev))
    if way.refused:
        refused = f"no route to {translated.to} in {name}: {way.refused}"
        missing = (refused,) if inside.forwards else (_not_forwarding(name, packet), refused)
        room.lost(f"is to be routed to {translated.to}", *missing, kinds=("route", "address", "sysctl"))
        return None
    if way.local:
        return (yield from _for_itself(room, translated, way))
    return _onward(room, translated, way)


def _absent(inside: Inside, name: str, dev: str, port: Port) -> Iterator[str]:
    if not inside.there:
        yield f"namespace {name} is gone"
        return
    link = inside.links.get(dev)
    if link is None:
        yield f"device {dev} is not in {name}"
        return
    if not link.up:
        yield f"device {dev} is down in {name}"
    if link.mac and link.mac != port.mac:
        yield f"device {dev} has MAC {link.mac}; its port has {port.mac}"


def _wrong(scene: Scene, name: str, kinds: Iterable[str]) -> tuple[str, ...]:
    """What is not as declared in a namespace; these kinds first."""
    first = [f"{kind}/{name}" for kind in kinds]
    return scene.not_right(lambda rid: rid.name == name or rid.name.startswith(f"{name}/"), first=first)


def _destination(room: _Room, packet: Packet) -> Packet | None:
    """After PREROUTING."""
    verdict = room.judged("nat", "PREROUTING", packet)
    floating = next((each for each in room.router.floating if each.floating == packet.to), None)
    if verdict.target in _TO_CHANGED and verdict.rule is not None:
        to, port = _translated(verdict, packet, room.inside.links.get(room.dev))
        what = "answered here" if verdict.target == "REDIRECT" else "sent on"
        shown = f"{to}, port {port}" if port and port != packet.port else to
        room.diary.tell(
            f"{packet.to} is translated to {shown}: {what}", _rule(room, verdict), doubts=_unjudged(verdict)
        )
        return packet.headed(to, port)
    if not verdict.lets_through:
        room.lost(f"for {packet.to}", "a rule of nat PREROUTING drops it", evidence=(_rule(room, verdict),))
        return None
    if floating is not None:
        gone = f"no rule translates floating IP {floating.floating} to {floating.fixed} (declared at {floating.origin})"
        room.lost(f"for floating IP {packet.to}", gone, kinds=_NAT)
        return None
    options = room.scene.topology.options.metadata
    if options and (packet.to, packet.protocol, packet.port) == (metadata.ADDRESS, "tcp", metadata.PORT):
        room.lost("for the metadata service", f"no rule redirects it to the proxy at port {options.port}", kinds=_NAT)
        return None
    return packet


def _translated(verdict: Verdict, packet: Packet, link: Link | None) -> tuple[str, int]:
    """The new destination and port."""
    if verdict.target == "REDIRECT":
        own = next((address for address in link.addresses if _same_version(address, packet)), "") if link else ""
        return own.partition("/")[0] or packet.to, int(verdict.value.partition("-")[0] or packet.port)
    value = verdict.value
    if value.startswith("["):
        address, _, port = value[1:].partition("]")
        return address, int(port.lstrip(":").partition("-")[0] or packet.port)
    address, _, port = (value, "", "") if value.count(":") > 1 else value.partition(":")
    return address.partition("-")[0], int(port.partition("-")[0] or packet.port)


def _same_version(address: str, packet: Packet) -> bool:
    return ip_address(address.partition("/")[0]).version == packet.version


def _for_itself(room: _Room, packet: Packet, way: Way) -> Asking[Delivered | None]:
    """The namespace is the receiver."""
    verdict = room.judged("filter", "INPUT", packet)
    route = Evidence(f"route: {way.route}") if way.route else Evidence("route: local")
    if not verdict.lets_through:
        room.lost(f"is for {room.name} itself", "filter INPUT drops it", evidence=(route, _rule(room, verdict)))
        return None
    if packet.protocol in {"tcp", "udp"}:
        listens = yield from ask(AskListening(room.name, packet.protocol, packet.port))
        if not listens:
            room.lost(
                f"is for {room.name} itself",
                f"nobody listens at {packet.protocol} port {packet.port} in {room.name}",
                evidence=(route,),
                kinds=("service",),
            )
            return None
    room.diary.tell(f"is for {room.name} itself", route, doubts=_unjudged(verdict))
    return Delivered(
        f"router {room.router.name}" if packet.protocol == "icmp" else f"port {packet.port} in {room.name}"
    )


def _onward(room: _Room, packet: Packet, way: Way) -> Onward | None:
    """Forwarded: filtered, and translated again."""
    ports = [*room.router.interfaces, *([room.router.gateway] if room.router.gateway else [])]
    out = next((port for port in ports if device_name(port) == way.dev), None)
    to = f"via {way.via} on {way.dev}" if way.via else f"on {way.dev}"
    route = _route(room, way)
    sentence = f"is routed {to}"
    if not room.inside.forwards:
        room.lost(sentence, _not_forwarding(room.name, packet), evidence=(route,), kinds=("sysctl",))
        return None
    if out is None:
        room.lost(sentence, f"{way.dev} is no port of router {room.router.name}", evidence=(route,))
        return None
    verdict = room.judged("filter", "FORWARD", packet, way.dev)
    if not verdict.lets_through:
        room.lost(sentence, "filter FORWARD drops it", evidence=(route, _rule(room, verdict)))
        return None
    if missing := tuple(_absent(room.inside, room.name, way.dev, out)):
        room.lost(sentence, *missing, evidence=(route,))
        return None
    room.diary.tell(sentence, route, doubts=_unjudged(verdict))
    translated = _source(room, packet, way, out)
    return None if translated is None else Onward(translated, out, way.via or packet.to)


def _not_forwarding(name: str, packet: Packet) -> str:
    return f"{name} does not forward: {'ip_forward' if packet.version == 4 else 'ipv6.conf.all.forwarding'} is 0"


def _source(room: _Room, packet: Packet, way: Way, out: Port) -> Packet | None:
    """After POSTROUTING."""
    verdict = room.judged("nat", "POSTROUTING", packet, way.dev)
    if verdict.target in _SOURCE_CHANGED:
        link = room.inside.links.get(way.dev)
        own = next((a for a in link.addresses if _same_version(a, packet)), "") if link else ""
        source = (verdict.value or own).partition(":" if packet.version == 4 else "/")[0].partition("/")[0]
        room.diary.tell(f"its source becomes {source}", _rule(room, verdict), doubts=_unjudged(verdict))
        return replace(packet, source=source)
    if not verdict.lets_through:
        room.lost("is to leave", "a rule of nat POSTROUTING drops it", evidence=(_rule(room, verdict),))
        return None
    if missing := _untranslated(room.router, packet, out):
        room.lost("leaves with its inner source", missing, kinds=_NAT)
        return None
    return packet


def _untranslated(router: Router, packet: Packet, out: Port) -> str:
    """What is missing when a packet goes outside with an inner address; '' when that is as declared."""
    if packet.version == 6 or router.gateway is None or out.id != router.gateway.id:
        return ""
    inner = [a for port in router.interfaces for a in port.addresses if ":" not in a.ip]
    if not any(ip_address(packet.source) in ip_network(str(address), strict=False) for address in inner):
        return ""
    floating = next((each for each in router.floating if each.fixed == packet.source), None)
    if floating is not None:
        return f"no rule makes {packet.source} its floating IP {floating.floating} (declared at {floating.origin})"
    if router.spec.gateway is not None and router.spec.gateway.snat:
        return f"no rule translates {packet.source} to the router's address outside (declared at {router.origin})"
    return ""


def _rule(room: _Room, verdict: Verdict) -> Evidence:
    if verdict.rule is None:
        return Evidence(f"policy of the chain: {verdict.target}")
    text, named = f"rule: {verdict.rule.plain}", verdict.rule.declared
    rid = next((rid for rid in room.scene.resources if named and str(rid).startswith(named)), None)
    return Evidence(text) if rid is None else room.scene.evidence(rid, text)


def _unjudged(verdict: Verdict) -> tuple[str, ...]:
    return tuple(f"whether this rule matches was not judged: {text}" for text in verdict.unjudged)


def _route(room: _Room, way: Way) -> Evidence:
    """A route as the kernel has it, with what declared it: the route itself, or the address whose subnet it is."""
    text, to = f"route: {way.route}", way.route.partition(" ")[0]
    for resource in room.scene.resources.values():
        spec = resource.spec
        if isinstance(spec, RouteSpec) and (spec.namespace, spec.to) == (room.name, to):
            return room.scene.evidence(resource.id, text)
        if isinstance(spec, AddressSpec) and (spec.namespace, spec.dev, _subnet(spec)) == (room.name, way.dev, to):
            return room.scene.evidence(resource.id, text)
    return Evidence(text)


def _subnet(spec: AddressSpec) -> str:
    return str(ip_network(spec.address, strict=False))
