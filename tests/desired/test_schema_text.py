"""Laws of reading one file: values are their source text, nothing in a file can raise, blow up or crash."""

from __future__ import annotations

import random
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from desired.kinds.openflow import FlowSpec
from desired.kinds.ovs import BridgeSpec, HeldPortSpec, PortSpec
from desired.kinds.sections import SECTIONS
from desired.resource import Mode, Resource, Spec
from desired.schema import read_file
from desired.schema.reading import FileContent

SEED = """\
x-a: &a {bridge: br-int, tag: 1}
bridges: {br-int: {fail_mode: secure, other_config: {k: 5}}}
ports:
  tap1: *a
  tap2: {<<: *a, tag: 2}
patches: [{br-int: p, br-tun: q}]
flows:
  br-int: ["priority=1,actions=normal", {flow: "actions=drop", adopt: true}]
---
apply_to: {nodes: ["n*"]}
groups: {br-int: {1: "type=all"}}
"""


def read(text: str | bytes) -> FileContent:
    return read_file(text.encode() if isinstance(text, str) else text, "t.yaml", SECTIONS)


def resources(text: str) -> dict[str, Resource]:
    content = read(text)
    assert content.problems == ()
    return {str(one.resource.id): one.resource for document in content.documents for one in document.declared}


def spec(text: str, rid: str) -> Spec:
    return resources(text)[rid].spec


@pytest.mark.parametrize(
    "written", ["5", "true", "yes", "on", "1.50", "0x10", "10:20:30", "2001-01-01", "1_000", "flow"]
)
def test_a_value_of_a_string_map_is_its_source_text(written: str) -> None:
    found = spec(f"bridges: {{br0: {{other_config: {{key: {written}}}}}}}", "bridge/br0")
    assert isinstance(found, BridgeSpec)
    assert found.other_config == {"key": written}


@pytest.mark.parametrize("name", ["on", "yes", "null", "1", "1.50", "0x10"])
def test_a_name_is_its_source_text(name: str) -> None:
    assert set(resources(f"bridges: {{{name}: }}")) == {f"bridge/{name}"}


def test_a_mac_of_digits_is_no_number_to_the_base_of_sixty() -> None:
    found = spec("bridges: {br0: {mac: 10:20:30:40:50:10}}", "bridge/br0")
    assert isinstance(found, BridgeSpec)
    assert found.mac == "10:20:30:40:50:10"


@pytest.mark.parametrize(("written", "key"), [("0x3e7", 999), ("999", 999), ("010", 10), ("flow", "flow"), ("'5'", 5)])
def test_numbers_may_be_decimal_or_hexadecimal(written: str, key: int | str) -> None:
    found = spec(f"ports: {{g: {{bridge: b, type: gre, remote_ip: flow, key: {written}}}}}", "port/g")
    assert isinstance(found, PortSpec)
    assert found.key == key


def test_a_null_body_is_all_defaults() -> None:
    assert spec("bridges: {br0: }", "bridge/br0") == spec("bridges: {br0: {fail_mode: secure}}", "bridge/br0")


def test_a_patch_pair_in_one_line_is_two_ports_that_name_each_other() -> None:
    one = resources("patches: [{br-int: patch-tun, br-tun: patch-int}]")
    two = resources(
        "ports:\n  patch-tun: {bridge: br-int, type: patch, peer: patch-int}\n"
        "  patch-int: {bridge: br-tun, type: patch, peer: patch-tun}\n"
    )
    assert {rid: found.spec for rid, found in one.items()} == {rid: found.spec for rid, found in two.items()}


def test_a_flow_is_named_by_its_bridge_and_its_folded_match() -> None:
    text = 'flows: {br0: ["table=1, priority=2  actions=drop", {flow: "actions=normal", adopt: true}]}'
    found = resources(text)
    assert set(found) == {"flow/br0/table=1,priority=2", "flow/br0/"}
    adopting = found["flow/br0/"].spec
    assert isinstance(adopting, FlowSpec)
    assert adopting.adopt


def test_groups_and_meters_are_named_by_their_number() -> None:
    text = 'groups: {br0: {0x10: "type=all"}}\nmeters: {br0: {2: {meter: "kbps,band=type=drop,rate=1", mode: observe}}}'
    assert set(resources(text)) == {"group/br0/16", "meter/br0/2"}


def test_the_mode_of_a_document_is_the_default_of_its_resources_only() -> None:
    found = resources("mode: observe\nbridges: {a: , b: {mode: enforce}}\n---\nbridges: {c: }")
    modes = {rid: resource.spec.mode for rid, resource in found.items()}
    assert modes == {"bridge/a": Mode.OBSERVE, "bridge/b": Mode.ENFORCE, "bridge/c": Mode.ENFORCE}


def test_documents_of_one_file_are_read_apart() -> None:
    text = "---\n".join(f"apply_to: {{nodes: [n{n}]}}\nbridges: {{br{n}: {{mtu: {n + 100}}}}}\n" for n in range(300))
    content = read(text)
    assert content.problems == ()
    for n, document in enumerate(content.documents):
        assert document.apply_to is not None
        assert document.apply_to.nodes == (f"n{n}",)
        assert [one.resource.id.name for one in document.declared] == [f"br{n}"]


def test_every_resource_knows_its_line_column_and_path() -> None:
    found = resources("ports:\n  tap1: {bridge: b}\nflows:\n  br0:\n    - actions=drop\n")
    assert str(found["port/tap1"].origin) == "t.yaml:2:3"
    assert (found["flow/br0/"].origin.line, found["flow/br0/"].origin.path) == (5, "flows.br0[0]")


def test_anchors_aliases_and_merge_keys_work() -> None:
    found = resources(SEED)
    tags = {rid: resource.spec.tag for rid, resource in found.items() if isinstance(resource.spec, PortSpec)}
    assert tags == {"port/tap1": 1, "port/tap2": 2, "port/p": None, "port/q": None}


def test_the_order_of_keys_in_a_map_is_no_change_of_intent() -> None:
    one = resources("held_ports: {x: {other_config: {a: 1, b: 2}}}")["held_port/x"]
    two = resources("held_ports: {x: {other_config: {b: 2, a: 1}}}")["held_port/x"]
    assert one.generation == two.generation
    assert isinstance(one.spec, HeldPortSpec)


def test_a_folded_flow_over_several_lines_is_one_line() -> None:
    found = resources("flows:\n  br0:\n    - >\n      priority=1,\n      actions=normal\n")
    assert set(found) == {"flow/br0/priority=1"}


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    content = read(b"\xef\xbb\xbfbridges:\r\n  br0: {}\r\n")
    assert content.problems == ()
    assert len(content.documents[0].declared) == 1


def laughs(levels: int) -> str:
    lines = ['x-0: &l0 {"k": "lol"}']
    for level in range(1, levels):
        inner = ", ".join(f"k{n}: *l{level - 1}" for n in range(10))
        lines.append(f"x-{level}: &l{level} {{{inner}}}")
    lines.append(f"bridges: {{br0: {{other_config: *l{levels - 1}}}}}")
    return "\n".join(lines)


@pytest.mark.parametrize("text", [laughs(9), laughs(30), laughs(60)])
def test_billion_laughs_are_bounded(text: str) -> None:
    began = time.perf_counter()
    content = read(text)
    assert content.problems
    assert time.perf_counter() - began < 10


def test_a_chain_of_merges_is_bounded() -> None:
    chain = "".join(f"x-{n}: &m{n} {{<<: *m{n - 1}}}\n" for n in range(1, 5000))
    assert any("levels deep" in problem.message for problem in read("x-0: &m0 {}\n" + chain).problems)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_a_problem_and_no_crash(opening: str) -> None:
    assert any("levels deep" in problem.message for problem in read(opening * 200_000).problems)


def test_what_an_alias_repeats_is_said_once() -> None:
    content = read("x-a: &a {bridge: br0, tga: 1}\nports: {p1: *a, p2: *a, p3: *a}")
    assert [problem.message for problem in content.problems] == ["unknown key 'tga'"]


def test_a_message_cannot_command_a_terminal() -> None:
    content = read('bridges: {"\\e[2J\\nbr": {"\\e]0;x": 1}}')
    assert all(str(problem).isprintable() for problem in content.problems)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="[]{}:,-&*!|>'\"#%@`\n\t abx0\x00é", max_size=60).map(str.encode))
def test_no_bytes_raise(raw: bytes) -> None:
    for problem in read(raw).problems:
        assert problem.line > 0
        assert problem.column > 0


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_no_damage_to_a_good_file_raises(rng: random.Random) -> None:
    text = list(SEED)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(text))
        text[place : place + rng.randint(0, 3)] = rng.choices("[]{}:,-&*!'\"# \nabtrue15", k=rng.randint(0, 3))
    for problem in read("".join(text)).problems:
        assert problem.line > 0
        assert problem.message


def test_speed_of_ten_thousand_flows() -> None:
    flows = "".join(
        f'    - "table=0,priority=3,tun_id={n},dl_dst=fa:16:3e:00:00:01,actions=mod_vlan_vid:5,NORMAL"\n'
        for n in range(10_000)
    )
    began = time.perf_counter()
    content = read(f"flows:\n  br-int:\n{flows}")
    sys.stdout.write(f"10,000 flows read and validated in {time.perf_counter() - began:.3f} s\n")
    assert len(content.documents[0].declared) == 10_000
    assert content.problems == ()
