"""Laws of the replica: following updates is the same as reading everything anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.drivers.ovsdb.audit import differences
from controllers.drivers.ovsdb.replica import Replica, ReplicaError
from controllers.drivers.ovsdb.rows import BridgeRow, InterfaceRow, PortRow, RootRow

NAMES = [f"p{n}" for n in range(6)]
IDS = st.none() | st.sampled_from(["a", "b"])

# A database at one moment: {table: {uuid: {column: value}}}; references are frozensets, maps are dicts.
World = dict[str, dict[str, dict[str, Any]]]

ports = st.tuples(
    st.sampled_from(["br0", "br1"]),
    st.integers(0, 1),  # incarnation: another one is another row of the same name
    st.none() | st.integers(1, 3),
    st.frozensets(st.integers(1, 20), max_size=20),
    st.lists(st.tuples(st.integers(0, 1), IDS, st.none() | st.integers(1, 9)), min_size=1, max_size=2),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    bridges = draw(st.dictionaries(st.sampled_from(["br0", "br1"]), st.tuples(st.integers(0, 1), IDS)))
    world: World = {"Open_vSwitch": {}, "Bridge": {}, "Port": {}, "Interface": {}}
    uuids = {name: f"bridge-{name}-{incarnation}" for name, (incarnation, _) in bridges.items()}
    world["Open_vSwitch"]["root"] = {
        "bridges": frozenset(uuids.values()),
        "other_config": draw(st.dictionaries(st.sampled_from("kl"), st.sampled_from("vw"))),
        "ovs_version": draw(st.sampled_from([None, "3.1"])),
    }
    for name, (_, mode) in bridges.items():
        world["Bridge"][uuids[name]] = {"name": name, "ports": frozenset(), "fail_mode": mode}
    for name, (bridge, incarnation, tag, trunks, interfaces) in draw(
        st.dictionaries(st.sampled_from(NAMES), ports)
    ).items():
        if bridge not in uuids:
            continue
        uuid = f"port-{name}-{incarnation}"
        refs = set()
        for index, (again, iface_id, ofport) in enumerate(interfaces):
            ref = f"iface-{name}-{index}-{again}"
            refs.add(ref)
            ids = {"iface-id": iface_id} if iface_id else {}
            world["Interface"][ref] = {"name": f"{name}.{index}", "external_ids": ids, "ofport": ofport}
        world["Port"][uuid] = {"name": name, "interfaces": frozenset(refs), "tag": tag, "trunks": trunks}
        row = world["Bridge"][uuids[bridge]]
        row["ports"] |= {uuid}
    return world


def wire(column: str, value: Any) -> Any:
    if isinstance(value, dict):
        return ["map", [[key, value[key]] for key in value]]
    if isinstance(value, frozenset):
        atoms = [["uuid", atom] if column in ("ports", "interfaces", "bridges") else atom for atom in value]
        return atoms[0] if len(atoms) == 1 else ["set", atoms]
    return ["set", []] if value is None else value


def difference(old: Any, new: Any) -> Any:
    if isinstance(new, dict):
        gone = {key: value for key, value in old.items() if key not in new}
        return gone | {key: value for key, value in new.items() if old.get(key) != value}
    return old ^ new if isinstance(new, frozenset) else new


def update2(before: World, after: World) -> dict[str, dict[str, dict[str, Any]]]:
    """What ovsdb-server sends, as ovsdb-server(7) describes it; deletions and insertions in any order."""
    updates: dict[str, dict[str, dict[str, Any]]] = {}
    for table, rows in after.items():
        old = before.get(table, {})
        for uuid in old.keys() - rows.keys():
            updates.setdefault(table, {})[uuid] = {"delete": None}
        for uuid, row in rows.items():
            if uuid not in old:
                update = {"insert": {column: wire(column, value) for column, value in row.items()}}
            elif changed := [column for column in row if row[column] != old[uuid][column]]:
                update = {
                    "modify": {column: wire(column, difference(old[uuid][column], row[column])) for column in changed}
                }
            else:
                continue
            updates.setdefault(table, {})[uuid] = update
    return updates


def read_anew(world: World) -> Replica:
    replica = Replica()
    replica.load(
        {
            table: {
                uuid: {"initial": {column: wire(column, value) for column, value in row.items()}}
                for uuid, row in rows.items()
            }
            for table, rows in world.items()
        }
    )
    return replica


def looks(replica: Replica) -> dict[str, object]:
    """All that is to be seen of each bridge and port."""
    ports = {
        name: (port, replica.bridge_of_port(name), [replica.interface_by_uuid(ref) for ref in port.interfaces])
        for name, port in replica.ports.items()
    }
    return {**ports, **replica.bridges}


def contents(replica: Replica) -> Mapping[str, object]:
    return {
        "rows": dict(replica.rows()),
        "root": replica.root,
        "bridges": replica.bridges,
        "ports": replica.ports,
        "interfaces": replica.interfaces,
        "on": {name: replica.bridge_of_port(name) for name in NAMES},
        "ids": {iface_id: replica.ports_by_iface_id(iface_id) for iface_id in ("a", "b", "c")},
    }


@given(st.lists(worlds(), min_size=1, max_size=5))
def test_any_sequence_of_updates_gives_what_reading_anew_gives(sequence: list[World]) -> None:
    replica, before = Replica(), World()
    for world in sequence:
        was = looks(replica)
        root = replica.root
        touched = replica.apply(update2(before, world))
        fresh = read_anew(world)
        assert contents(replica) == contents(fresh)
        assert list(differences(replica, fresh)) == []
        now = looks(replica)
        assert {name for name in was | now if was.get(name) != now.get(name)} <= touched.names <= (was | now).keys()
        assert replica.root is not None
        if root is None or root.other_config != replica.root.other_config:
            assert touched.root
        before = world


@given(worlds())
def test_an_unchanged_world_touches_nothing(world: World) -> None:
    replica = read_anew(world)
    assert replica.apply(update2(world, world)).names == frozenset()
    assert contents(replica.copy()) == contents(replica)


@given(worlds(), worlds())
def test_a_copy_does_not_follow(first: World, second: World) -> None:
    replica = read_anew(first)
    copy = replica.copy()
    replica.apply(update2(first, second))
    assert contents(copy) == contents(read_anew(first))


def test_deletion_and_re_creation_in_one_update_leave_the_new_row_in_any_order() -> None:
    for order in (("p-new", "p-old"), ("p-old", "p-new")):
        replica = Replica(
            [BridgeRow("b", "br0", ("p-old",)), PortRow("p-old", "p", ("i-old",)), InterfaceRow("i-old", "p")]
        )
        port = {
            "p-old": {"delete": None},
            "p-new": {"insert": {"name": "p", "interfaces": ["uuid", "i-new"], "tag": 5}},
        }
        touched = replica.apply(
            {
                "Port": {uuid: port[uuid] for uuid in order},
                "Interface": {"i-old": {"delete": None}, "i-new": {"insert": {"name": "p"}}},
                "Bridge": {"b": {"modify": {"ports": ["set", [["uuid", uuid] for uuid in order]]}}},
            }
        )
        assert touched.names == {"p", "br0"}
        assert replica.ports["p"] == PortRow("p-new", "p", ("i-new",), tag=5)
        assert replica.bridges["br0"].ports == ("p-new",)
        assert replica.bridge_of_port("p") == "br0"
        assert replica.port_by_uuid("p-old") is None


def test_a_rename_touches_the_old_name_and_the_new() -> None:
    replica = Replica([BridgeRow("b", "br0", ("p",)), PortRow("p", "old", ("i",)), InterfaceRow("i", "old")])
    touched = replica.apply({"Port": {"p": {"modify": {"name": "new"}}}})
    assert touched.names == {"old", "new"}
    assert set(replica.ports) == {"new"}


def test_an_interface_is_told_by_its_port() -> None:
    replica = Replica([BridgeRow("b", "br0", ("p",)), PortRow("p", "bond0", ("i",)), InterfaceRow("i", "eth0")])
    assert replica.apply({"Interface": {"i": {"modify": {"ofport": 7}}}}).names == {"bond0"}
    assert replica.interfaces["eth0"].ofport == 7


def test_ports_that_leave_and_enter_a_bridge_are_touched_with_it() -> None:
    replica = Replica([BridgeRow("a", "br0", ("p",)), BridgeRow("b", "br1"), PortRow("p", "p")])
    touched = replica.apply(
        {"Bridge": {"b": {"modify": {"ports": ["uuid", "p"]}}, "a": {"modify": {"ports": ["uuid", "p"]}}}}
    )
    assert touched.names == {"br0", "br1", "p"}
    assert replica.bridge_of_port("p") == "br1"


def test_the_root_row_is_news_unless_only_its_bridges_changed() -> None:
    replica = Replica([RootRow("r")])
    assert not replica.apply({"Open_vSwitch": {"r": {"modify": {"bridges": ["uuid", "b"]}}}}).root
    assert replica.apply({"Open_vSwitch": {"r": {"modify": {"other_config": ["map", [["a", "b"]]]}}}}).root


@pytest.mark.parametrize(
    "update", [{"Port": {"p": {"delete": None}}}, {"Port": {"p": {"modify": {"tag": 1}}}}, {"Port": 5}, {"X": {"p": 1}}]
)
def test_an_update_that_does_not_fit_is_refused(update: Any) -> None:
    with pytest.raises(ReplicaError, match="read anew"):
        Replica().apply(update)
