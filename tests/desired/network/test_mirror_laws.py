"""Laws of the mirror: no order, loss or repetition of notices makes it wrong for longer than to a full read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from desired.network.mirror import Limits, Mirror
from desired.network.notice import Notice, parse
from desired.network.openstack import FIELDS, NOTIFIED, Kind
from desired.resource import ResourceId, Resources
from tests.desired.network.neutron import Body, floating_ip, message, network, port, router, subnet, uid
from tests.desired.network.test_notice import EVERYTHING

LIMITS = Limits(skew=0.0)
HOSTS = ("", "compute1", "compute2")
Word = tuple[Kind, int]


@dataclass(frozen=True)
class Op:
    """What is done to an object of a few: created or changed (`name`), or deleted. `less`: told as a tenant sees it."""

    kind: Kind
    number: int
    name: int
    delete: bool
    less: bool


def _body(op: Op) -> Body:
    number, name = op.number, f"n{op.name}"
    match op.kind:
        case Kind.NETWORK:
            return network(100 + number, name=name, mtu=1400 + op.name)
        case Kind.SUBNET:
            return subnet(200 + number, 100 + number, name=name, dns_nameservers=[f"9.9.9.{op.name}"])
        case Kind.ROUTER:
            info = {"network_id": uid(100 + op.name % 3)} if op.name % 2 else None
            return router(400 + number, name=name, external_gateway_info=info, ha=op.name == 5)
        case Kind.FLOATINGIP:
            return floating_ip(500 + number, 100, name=name, port_id=uid(300 + op.name % 3))
    owner = ("compute:nova", "network:router_interface", "network:router_gateway")[op.name % 3]
    host = {"binding:host_id": HOSTS[op.name % 3]}
    device = uid(400 + op.name % 2)
    return port(300 + number, 100 + number, 200 + number, name=name, device_owner=owner, device_id=device, **host)


OPS = st.lists(
    st.builds(
        Op,
        st.sampled_from(NOTIFIED),
        st.integers(0, 2),
        st.integers(0, 5),
        st.sampled_from((False, False, False, True)),
        st.booleans(),
    ),
    max_size=25,
)


class Server:
    """Neutron: operations one after the other, a second each; what it notified, and what a read would have shown."""

    def __init__(self, ops: Sequence[Op], *, revisions: bool) -> None:
        self.notices: list[Notice] = []
        self.shown: list[dict[Word, Body]] = [{}]
        dead: set[Word] = set()
        for at, op in enumerate(ops, 1):
            state, word = dict(self.shown[-1]), (op.kind, op.number)
            body = _body(op)
            if revisions:
                before = state.get(word, {}).get("revision_number", 0)
                body["revision_number"] = before + 1
            if word in dead or (op.delete and word not in state):
                pass  # an id is never used again
            elif op.delete:
                del state[word]
                dead.add(word)
                self._notify(f"{op.kind}.delete.end", {f"{op.kind}_id": body["id"]}, at)
            else:
                event = "update" if word in state else "create"
                state[word] = body | {"updated_at": f"1970-01-01T00:00:{at:02}Z"}
                told = {name: value for name, value in body.items() if not (op.less and ":" in name)}
                self._notify(f"{op.kind}.{event}.end", {op.kind: told}, at)
            self.shown.append(state)

    def _notify(self, event: str, payload: Body, at: int) -> None:
        self.notices.append(parse(message(event, payload, float(at)), 0.0))

    def read(self, at: int) -> dict[Kind, list[Body]]:
        """What a list of each kind shows after `at` operations."""
        state = self.shown[at]
        return {kind: [body for (each, _), body in state.items() if each is kind] for kind in NOTIFIED}

    def truth(self) -> Resources:
        mirror = Mirror(LIMITS)
        mirror.full_read(1000.0, self.read(-1))
        return mirror.resources


@given(OPS, st.booleans(), st.data())
@settings(deadline=None)
def test_whatever_happened_to_the_notices_a_full_read_is_the_truth(
    ops: list[Op], revisions: bool, data: st.DataObject
) -> None:
    server = Server(ops, revisions=revisions)
    mirror = Mirror(LIMITS)
    arriving = data.draw(st.lists(st.sampled_from(server.notices))) if server.notices else []
    for notice in arriving:
        mirror.take([notice])
    mirror.full_read(500.0, server.read(-1))
    assert mirror.resources == server.truth()
    for notice in server.notices:  # all of them late now
        mirror.take([notice])
    assert mirror.resources == server.truth()


@given(OPS, st.booleans(), st.data())
@settings(deadline=None)
def test_the_order_of_notices_and_of_a_read_does_not_matter(
    ops: list[Op], revisions: bool, data: st.DataObject
) -> None:
    server = Server(ops, revisions=revisions)
    start = data.draw(st.integers(0, len(ops)))
    rows = {kind: server.read(data.draw(st.integers(start, len(ops))))[kind] for kind in NOTIFIED}
    mirrors = []
    for _ in range(2):
        mirror = Mirror(LIMITS)
        arriving = data.draw(st.permutations([*server.notices, None]))
        for notice in arriving:
            if notice is None:
                mirror.full_read(start + 0.5, rows)
            else:
                mirror.take([notice, notice])
        mirrors.append(mirror)
    first, second = mirrors
    assert first.resources == second.resources
    assert len(first) == len(second)


@given(OPS, st.booleans(), st.data())
@settings(deadline=None)
def test_with_a_read_and_no_loss_every_order_ends_at_the_truth(
    ops: list[Op], revisions: bool, data: st.DataObject
) -> None:
    server = Server([Op(op.kind, op.number, op.name, op.delete, less=False) for op in ops], revisions=revisions)
    start = data.draw(st.integers(0, len(ops)))
    mirror = Mirror(LIMITS)
    for notice in data.draw(st.permutations([*server.notices, None])):
        if notice is None:
            mirror.full_read(start + 0.5, server.read(data.draw(st.integers(start, len(ops)))))
        else:
            mirror.take([notice])
    assert mirror.resources == server.truth()


@given(OPS, st.booleans(), st.data())
@settings(deadline=None)
def test_a_restart_at_any_moment_changes_nothing(ops: list[Op], revisions: bool, data: st.DataObject) -> None:
    server = Server(ops, revisions=revisions)
    kept = {}
    mirror = Mirror(LIMITS)
    arriving = data.draw(st.permutations([*server.notices, None]))
    for number, notice in enumerate(arriving):
        changed = mirror.full_read(2.5, server.read(min(2, len(ops)))) if notice is None else mirror.take([notice])
        kept.update({(row.kind, row.name): row for row in changed.rows})
        for key in changed.forgotten:
            kept.pop(key, None)
        again = Mirror(LIMITS)
        again.restore(kept.values())
        assert again.resources == mirror.resources
        assert again.read_at == mirror.read_at
        if number % 3 == 0:
            mirror = again


EVENTS = [f"{kind}.{what}.end" for kind in NOTIFIED for what in ("create", "update", "delete")] + [
    "router.interface.create", "router.interface.delete", "port.create.start", "something.else",
]  # fmt: skip
OBJECTS = st.dictionaries(st.sampled_from(sorted({*FIELDS[Kind.PORT], *FIELDS[Kind.ROUTER], "port_id"})), EVERYTHING)


@given(st.lists(st.tuples(st.sampled_from(EVENTS), OBJECTS, EVERYTHING, st.booleans()), max_size=8))
@settings(deadline=None)
def test_no_payload_is_raised_and_the_next_notice_is_taken(
    words: list[tuple[str, Body, object, bool]],
) -> None:
    mirror = Mirror(LIMITS)
    for at, (event, body, anything, known) in enumerate(words):
        inside = {**body, "id": uid(1), "port_id": uid(2), "subnet_id": uid(3)} if known else anything
        first = event.partition(".")[0]
        names = (first, f"{first}s", f"{first}_id", "router_interface")
        mirror.take([Notice(event, float(at), "", {name: [inside] if name[-1] == "s" else inside for name in names})])
    mirror.full_read(100.0, {kind: [word[2] for word in words] for kind in NOTIFIED})  # type: ignore[misc]
    mirror.take([parse(message("network.create.end", {"network": network(7)}, 200.0), 0.0)])
    assert ResourceId("network", uid(7)) in mirror.resources
    assert mirror.counts.total() >= len(words) + 1


@given(st.permutations(range(5)))
def test_a_routers_interface_is_the_same_in_any_order(order: list[int]) -> None:
    info = {"id": uid(9), "port_id": uid(3), "subnet_id": uid(2), "subnet_ids": [uid(2)]}
    events: list[tuple[str, Body]] = [
        ("network.create.end", {"network": network(1)}),
        ("subnet.create.end", {"subnet": subnet(2, 1)}),
        ("router.create.end", {"router": router(9)}),
        ("router.interface.create", {"router_interface": info}),
        ("subnet.update.end", {"subnet": subnet(2, 1, name="later")}),
    ]
    notices = [parse(message(event, payload, float(at)), 0.0) for at, (event, payload) in enumerate(events)]
    straight, mirror = Mirror(LIMITS), Mirror(LIMITS)
    straight.take(notices)
    mirror.take([notices[number] for number in order])
    assert mirror.resources == straight.resources
    gone = parse(message("router.interface.delete", {"router_interface": info}, 9.0), 0.0)
    early, late = Mirror(LIMITS), straight
    early.take([gone, *(notices[number] for number in order)])
    late.take([gone])
    assert early.resources == late.resources
