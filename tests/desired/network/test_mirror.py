"""The mirror, event by event: each kind, both spellings, deletes, late and partial words, and what it asks for."""

from __future__ import annotations

from typing import Any

import pytest

from desired.network.mirror import PIECE, Changed, Limits, Mirror
from desired.network.model import NetworkSpec, NeutronPortSpec, Owner, RouterInterface, RouterSpec
from desired.network.notice import parse
from desired.network.openstack import Kind
from desired.resource import ResourceId
from tests.desired.network.neutron import Body, floating_ip, message, network, port, router, subnet, uid

EXACT = Limits(skew=0.0)


def tell(mirror: Mirror, event: str, payload: Any, at: float, **more: Any) -> Changed:
    return mirror.take([parse(message(event, payload, at, **more), at)])


def everything(*objects: tuple[Kind, Body]) -> dict[Kind, list[Body]]:
    kinds = (Kind.NETWORK, Kind.SUBNET, Kind.PORT, Kind.ROUTER, Kind.FLOATINGIP)
    return {kind: [body for each, body in objects if each is kind] for kind in kinds}


def spec_of(mirror: Mirror, kind: str, number: int) -> Any:
    return mirror.resources[ResourceId(kind, uid(number))].spec


@pytest.mark.parametrize(
    ("kind", "body", "made"),
    [
        (Kind.NETWORK, network(1), "network"),
        (Kind.SUBNET, subnet(1, 2), "subnet"),
        (Kind.PORT, port(1, 2, 3), "neutron_port"),
        (Kind.ROUTER, router(1), "router"),
        (Kind.FLOATINGIP, floating_ip(1, 2), "neutron_floating_ip"),
    ],
)
def test_every_kind_is_created_changed_and_deleted(kind: Kind, body: Body, made: str) -> None:
    mirror = Mirror()
    rid = ResourceId(made, uid(1))
    assert not tell(mirror, f"{kind}.create.start", {kind: {"name": "only the request"}}, 1.0)
    assert tell(mirror, f"{kind}.create.end", {kind: body}, 2.0).resources == {rid}
    changed = tell(mirror, f"{kind}.update.end", {kind: body | {"name": "new"}}, 3.0)
    assert changed.resources == {rid}
    assert [(row.kind, row.name, row.at) for row in changed.rows] == [(kind, uid(1), 3.0)]
    assert mirror.resources[rid].spec.display == "new"  # type: ignore[attr-defined]
    changed = tell(mirror, f"{kind}.delete.end", {f"{kind}_id": uid(1)}, 4.0)
    assert changed.resources == {rid}
    assert [(row.kind, row.name, row.body) for row in changed.rows] == [(kind, uid(1), None)]
    assert not mirror.resources
    assert mirror.counts == {"start": 1, "taken": 3}


def test_a_delete_that_shows_only_the_object_is_understood() -> None:
    mirror = Mirror()
    tell(mirror, "port.create.end", {"port": port(1, 2, 3)}, 1.0)
    tell(mirror, "port.delete.end", {"port": port(1, 2, 3)}, 2.0)
    assert not mirror.resources


def test_a_bulk_create_is_many_objects() -> None:
    mirror = Mirror()
    tell(mirror, "port.create.end", {"ports": [port(number, 2, 3) for number in range(10, 20)]}, 1.0)
    assert len(mirror.resources) == 10


@pytest.mark.parametrize("spelling", ["router_interface", "router.interface"])
def test_a_router_gets_and_loses_an_interface_in_both_spellings(spelling: str) -> None:
    mirror = Mirror()
    tell(mirror, "network.create.end", {"network": network(1)}, 1.0)
    tell(mirror, "subnet.create.end", {"subnet": subnet(2, 1)}, 2.0)
    tell(mirror, "router.create.end", {"router": router(9)}, 3.0)
    info = {"id": uid(9), "port_id": uid(3), "subnet_id": uid(2), "tenant_id": "t"}
    changed = tell(mirror, "router.interface.create", {spelling: info}, 4.0)
    assert spec_of(mirror, "router", 9).interfaces == (RouterInterface(subnet=uid(2)),)
    made = spec_of(mirror, "neutron_port", 3)
    assert (made.network, made.owner, made.device) == (uid(1), Owner.ROUTER_INTERFACE, uid(9))
    assert [fixed.ip for fixed in made.fixed_ips] == ["10.0.2.1"]
    assert "only the id is known" in changed.wants_read
    tell(mirror, "router.interface.delete", {spelling: info}, 5.0)
    assert spec_of(mirror, "router", 9).interfaces == ()
    assert ResourceId("neutron_port", uid(3)) not in mirror.resources


def test_a_port_becomes_an_interface_when_its_router_says_so() -> None:
    mirror = Mirror()
    tell(mirror, "router.create.end", {"router": router(9)}, 1.0)
    tell(mirror, "port.create.end", {"port": port(3, 1, 2, device_owner="", device_id="")}, 2.0)
    info = {"id": uid(9), "port_id": uid(3), "subnet_id": uid(2), "subnet_ids": [uid(2)]}
    tell(mirror, "router.interface.create", {"router_interface": info}, 3.0)
    assert spec_of(mirror, "router", 9).interfaces == (RouterInterface(subnet=uid(2), ip="10.0.2.5"),)
    assert spec_of(mirror, "neutron_port", 3).owner is Owner.ROUTER_INTERFACE


def test_an_interface_with_two_prefixes_keeps_the_one_that_was_not_removed() -> None:
    mirror = Mirror()
    both = [{"subnet_id": uid(2), "ip_address": "2001:db8::1"}, {"subnet_id": uid(4), "ip_address": "2001:db8:1::1"}]
    owned = {"device_owner": "network:router_interface", "device_id": uid(9)}
    mirror.full_read(1.0, {Kind.PORT: [port(3, 1, 2, fixed_ips=both, **owned)], Kind.ROUTER: [router(9)]})
    info = {"id": uid(9), "port_id": uid(3), "subnet_id": uid(2), "subnet_ids": [uid(2)]}
    tell(mirror, "router.interface.delete", {"router_interface": info}, 3.0)
    assert spec_of(mirror, "router", 9).interfaces == (RouterInterface(subnet=uid(4), ip="2001:db8:1::1"),)


def test_a_gateway_whose_port_is_unknown_asks_for_a_read() -> None:
    mirror = Mirror()
    info = {"network_id": uid(5), "enable_snat": True, "external_fixed_ips": [{"ip_address": "172.24.4.7"}]}
    changed = tell(mirror, "router.update.end", {"router": router(9, external_gateway_info=info)}, 1.0)
    spec = spec_of(mirror, "router", 9)
    assert isinstance(spec, RouterSpec)
    assert spec.gateway is not None
    assert spec.gateway.ips == ("172.24.4.7",)
    assert "the port of its gateway is not known" in changed.wants_read


def test_a_gateways_port_follows_its_router() -> None:
    """Neutron changes and deletes that port without a word."""
    mirror = Mirror()
    old = {"network_id": uid(5), "external_fixed_ips": [{"subnet_id": uid(6), "ip_address": "172.24.4.7"}]}
    new = {"network_id": uid(5), "external_fixed_ips": [{"subnet_id": uid(6), "ip_address": "172.24.4.8"}]}
    own = port(4, 5, 6, device_owner="network:router_gateway", device_id=uid(9))
    mirror.full_read(1.0, {Kind.PORT: [own], Kind.ROUTER: [router(9, external_gateway_info=old)]})
    assert [fixed.ip for fixed in spec_of(mirror, "neutron_port", 4).fixed_ips] == ["172.24.4.7"]
    changed = tell(mirror, "router.update.end", {"router": router(9, external_gateway_info=new)}, 2.0)
    assert [fixed.ip for fixed in spec_of(mirror, "neutron_port", 4).fixed_ips] == ["172.24.4.8"]
    assert not changed.wants_read
    tell(mirror, "router.update.end", {"router": router(9)}, 3.0)
    assert ResourceId("neutron_port", uid(4)) not in mirror.resources


def test_what_a_tenant_may_not_see_is_not_forgotten() -> None:
    mirror = Mirror()
    tell(mirror, "network.create.end", {"network": network(1)}, 1.0)
    seen = {name: value for name, value in network(1, name="mine").items() if not name.startswith("provider:")}
    tell(mirror, "network.update.end", {"network": seen}, 2.0)
    spec = spec_of(mirror, "network", 1)
    assert isinstance(spec, NetworkSpec)
    assert (spec.display, spec.segmentation_id) == ("mine", 1)


def test_what_nobody_told_is_left_out_and_asked_for() -> None:
    mirror = Mirror()
    seen = {name: value for name, value in network(1).items() if not name.startswith("provider:")}
    changed = tell(mirror, "network.create.end", {"network": seen}, 1.0)
    assert "provider:network_type" in changed.wants_read
    assert list(mirror.problems.values()) == [changed.wants_read]
    changed = mirror.full_read(2.0, {Kind.NETWORK: [network(1)]})
    assert (changed.wants_read, dict(mirror.problems)) == ("", {})
    assert spec_of(mirror, "network", 1).segmentation_id == 1


def test_a_partial_update_changes_what_it_says() -> None:
    mirror = Mirror()
    tell(mirror, "port.create.end", {"port": port(3, 1, 2)}, 1.0)
    tell(mirror, "port.update.end", {"port": {"id": uid(3), "binding:host_id": "compute2"}}, 2.0)
    spec = spec_of(mirror, "neutron_port", 3)
    assert isinstance(spec, NeutronPortSpec)
    assert (spec.node, spec.mac) == ("compute2", "fa:16:3e:00:00:03")


def test_an_older_word_changes_nothing_newer() -> None:
    mirror = Mirror()
    tell(mirror, "port.create.end", {"port": port(3, 1, 2, name="new", revision_number=7)}, 1.0)
    tell(mirror, "port.update.end", {"port": port(3, 1, 2, name="old", revision_number=5)}, 9.0)
    assert spec_of(mirror, "neutron_port", 3).display == "new"
    assert mirror.counts == {"taken": 1, "late": 1}


def test_a_duplicate_is_counted_and_nothing_else() -> None:
    mirror = Mirror()
    assert tell(mirror, "network.create.end", {"network": network(1)}, 1.0)
    assert not tell(mirror, "network.create.end", {"network": network(1)}, 1.0)
    assert mirror.counts == {"taken": 1, "duplicate": 1}


def test_a_late_update_does_not_raise_the_dead() -> None:
    mirror = Mirror(EXACT)
    tell(mirror, "port.delete.end", {"port_id": uid(3)}, 5.0)
    tell(mirror, "port.update.end", {"port": port(3, 1, 2)}, 4.0)
    assert not mirror.resources
    mirror.full_read(6.0, everything())
    tell(mirror, "port.update.end", {"port": port(3, 1, 2, name="again")}, 3.0)
    assert not mirror.resources
    assert mirror.counts == {"taken": 1, "late": 2}


def test_a_read_that_began_before_a_delete_does_not_undo_it() -> None:
    mirror = Mirror(EXACT)
    tell(mirror, "port.delete.end", {"port_id": uid(3)}, 5.0)
    mirror.full_read(4.0, everything((Kind.PORT, port(3, 1, 2))))
    assert not mirror.resources
    mirror.full_read(6.0, everything((Kind.PORT, port(3, 1, 2))))
    assert len(mirror.resources) == 1


def test_a_delete_from_before_a_read_that_shows_the_object_is_late() -> None:
    mirror = Mirror(EXACT)
    mirror.full_read(6.0, everything((Kind.PORT, port(3, 1, 2))))
    tell(mirror, "port.delete.end", {"port_id": uid(3)}, 5.0)
    assert len(mirror.resources) == 1
    assert mirror.counts == {"late": 1}


def test_only_a_complete_read_removes_and_nothing_newer_than_its_start() -> None:
    mirror = Mirror(EXACT)
    tell(mirror, "network.create.end", {"network": network(1)}, 1.0)
    tell(mirror, "network.create.end", {"network": network(2)}, 8.0)
    mirror.full_read(5.0, everything(), complete=False)
    assert len(mirror.resources) == 2
    changed = mirror.full_read(5.0, everything())
    assert set(mirror.resources) == {ResourceId("network", uid(2))}
    assert changed.forgotten == (("network", uid(1)),)


def test_a_read_of_one_kind_removes_nothing_of_another() -> None:
    mirror = Mirror(EXACT)
    tell(mirror, "network.create.end", {"network": network(1)}, 1.0)
    mirror.full_read(5.0, {Kind.PORT: []})
    assert len(mirror.resources) == 1
    assert mirror.problem


def test_the_source_is_in_sync_once_everything_was_read() -> None:
    mirror = Mirror(EXACT)
    assert "never read whole" in mirror.problem
    mirror.full_read(5.0, everything())
    assert (mirror.problem, mirror.read_at) == ("", 5.0)


def test_agents_make_nodes() -> None:
    mirror = Mirror()
    agent = {"id": uid(1), "host": "net1", "agent_type": "L3 agent", "configurations": {}}
    mirror.full_read(5.0, {Kind.AGENT: [agent]})
    assert list(mirror.resources) == [ResourceId("node", "net1")]
    mirror.full_read(9.0, {Kind.AGENT: []})
    assert not mirror.resources


def test_a_router_that_is_not_supported_is_a_problem_of_its_own() -> None:
    mirror = Mirror()
    tell(mirror, "router.create.end", {"router": router(8, distributed=True)}, 1.0)
    tell(mirror, "router.create.end", {"router": router(9)}, 2.0)
    assert list(mirror.resources) == [ResourceId("router", uid(9))]
    assert "distributed: true" in mirror.problems[Kind.ROUTER, uid(8)]


def test_other_events_are_counted_by_name_and_bounded() -> None:
    mirror = Mirror()
    for number in range(200):
        tell(mirror, f"compute.instance{number}.create.end", {}, float(number))
    tell(mirror, "security_group.create.end", {"security_group": {"id": uid(1)}}, 300.0)
    assert mirror.counts == {"ignored": 201}
    assert len(mirror.other_events) == 50


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("port.create.end", {}),
        ("port.create.end", {"port": None}),
        ("port.create.end", {"port": {"id": "x"}}),
        ("port.create.end", {"ports": {}}),
        ("port.delete.end", {"port_id": 7}),
        ("router.interface.create", {}),
        ("router.interface.create", {"router_interface": {"id": uid(1), "port_id": uid(2)}}),
        ("router.interface.delete", {"router_interface": "x"}),
    ],
)
def test_a_malformed_payload_is_counted(event: str, payload: Any) -> None:
    mirror = Mirror()
    assert not tell(mirror, event, payload, 1.0)
    assert mirror.counts == {"malformed": 1}


def test_what_the_store_kept_is_the_mirror_again() -> None:
    mirror = Mirror(EXACT)
    rows = list(mirror.full_read(5.0, everything((Kind.NETWORK, network(1)), (Kind.PORT, port(3, 1, 2)))).rows)
    rows += tell(mirror, "port.update.end", {"port": {"id": uid(3), "name": "late"}}, 6.0).rows
    rows += tell(mirror, "network.delete.end", {"network_id": uid(1)}, 7.0).rows
    again = Mirror(EXACT)
    changed = again.restore({(row.kind, row.name): row for row in rows}.values())
    assert (again.resources, again.read_at, len(again)) == (mirror.resources, 5.0, 1)
    assert not changed.rows
    tell(again, "network.update.end", {"network": network(1)}, 6.5)
    assert ResourceId("network", uid(1)) not in again.resources


def test_what_came_before_the_store_answered_stays_where_it_is_newer() -> None:
    old = Mirror(EXACT)
    rows = tell(old, "network.create.end", {"network": network(1, name="old")}, 1.0).rows
    mirror = Mirror(EXACT)
    tell(mirror, "network.create.end", {"network": network(1, name="new")}, 2.0)
    mirror.restore(rows)
    assert spec_of(mirror, "network", 1).display == "new"


def test_a_large_mirror_is_recalled_in_pieces_and_news_may_come_in_between() -> None:
    old = Mirror(EXACT)
    ports = [(Kind.PORT, port(number, 1, 2)) for number in range(10, 10 + 3 * PIECE)]
    rows = old.full_read(5.0, everything((Kind.NETWORK, network(1)), *ports)).rows
    mirror = Mirror(EXACT)
    sizes = []
    for number, piece in enumerate(mirror.restoring(rows)):
        sizes.append(len(piece.resources))
        partial = mirror.resources.keys() < old.resources.keys()
        assert mirror.problem or not partial  # nothing may be deleted because it is not there yet
        if number == 2:
            tell(mirror, "port.update.end", {"port": port(10, 1, 2, name="new")}, 6.0)
        assert not piece.rows
    assert max(sizes) <= PIECE
    assert not mirror.problem
    assert mirror.resources.keys() == old.resources.keys()
    assert spec_of(mirror, "neutron_port", 10).display == "new"


def test_memory_is_bounded() -> None:
    mirror = Mirror(Limits(seen=100, tombstones=50))
    for number in range(1000):
        tell(mirror, "port.delete.end", {"port_id": uid(number)}, float(number))
    assert len(mirror) == 0
    assert (len(mirror._entries), len(mirror._seen), len(mirror._order)) == (50, 100, 100)
    assert (len(mirror._translated._bodies), len(mirror._translated._related)) == (0, 0)
