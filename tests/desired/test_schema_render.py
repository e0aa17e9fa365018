"""Rendering is the inverse of loading, and the editors' schema takes what the rules take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from desired.kinds.openflow import FlowSpec, GroupSpec, MeterSpec
from desired.kinds.ovs import BondSpec, BridgeSpec, HeldPortSpec, PortSpec
from desired.kinds.sections import SECTIONS
from desired.resource import Mode, Origin, Resource, ResourceId, Spec
from desired.schema import dump_resources, json_schema, load_tree, read_file
from desired.snapshot import Snapshot

EXAMPLE = Path(__file__).parent / "network-node"
GOLDEN = Path(__file__).parent / "golden"

lines = st.text(
    st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" :#,[]{}&*!|>'\"%@`"), max_size=12
).filter(lambda text: text.isprintable() and text == text.strip())
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,14}", fullmatch=True)
maps = st.dictionaries(lines, lines, max_size=3).filter(lambda found: "reconciler" not in found)
modes = st.sampled_from(list(Mode))
tags = st.none() | st.integers(0, 4095)


def resource(name: str, spec: Spec) -> Resource:
    return Resource(ResourceId(spec.kind, name), spec, Origin("test", "f.yaml", 1, 1), spec.generation())


bridges = st.builds(
    BridgeSpec,
    fail_mode=st.sampled_from(["secure", "standalone"]),
    protocols=st.none() | st.just(("OpenFlow14", "OpenFlow10")),
    other_config=maps.map(lambda found: dict(sorted(found.items()))),
    adopt=st.booleans(),
    mode=modes,
    mtu=st.none() | st.integers(68, 9000),
)
ports = st.builds(
    PortSpec,
    bridge=names,
    tag=tags,
    trunks=st.lists(st.integers(0, 4095), max_size=3).map(tuple),
    interface_external_ids=maps.map(lambda found: dict(sorted(found.items()))),
    mac=st.none() | st.just("fa:16:3e:00:00:01"),
)
held = st.builds(HeldPortSpec, tag=tags, other_config=maps.map(lambda found: dict(sorted(found.items()))))


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(names, bridges, max_size=3),
    st.dictionaries(names, ports, max_size=3),
    st.dictionaries(lines.filter(bool), held, max_size=3),
    st.lists(st.tuples(names, lines), max_size=4, unique=True),
)
def test_what_is_rendered_loads_into_the_same(
    some_bridges: dict[str, Spec], some_ports: dict[str, Spec], some_held: dict[str, Spec], some: list[tuple[str, str]]
) -> None:
    texts = {(bridge, f"priority={n}"): word for n, (bridge, word) in enumerate(some)}
    found = [resource(name, spec) for name, spec in [*some_bridges.items(), *some_ports.items(), *some_held.items()]]
    for (bridge, match), word in texts.items():
        flow = FlowSpec(bridge=bridge, flow=f"{match},actions=note: {word}".strip())
        found.append(resource(f"{bridge}/{match}", flow))
        found.append(resource(f"{bridge}/{len(found)}", GroupSpec(bridge=bridge, group_id=len(found), group=word)))
    content = read_file(dump_resources(found, SECTIONS).encode(), "r.yaml", SECTIONS)
    assert content.problems == ()
    again = [one.resource for document in content.documents for one in document.declared]
    assert {one.id: one.spec for one in again} == {one.id: one.spec for one in found}
    assert Snapshot.of(again).revision == Snapshot.of(found).revision


def test_every_kind_is_rendered_with_where_it_came_from() -> None:
    found = [
        resource("br0", BridgeSpec()),
        resource("bond0", BondSpec(bridge="br0", interfaces=("a", "b"))),
        resource("br0/2", MeterSpec(bridge="br0", meter_id=2, meter="kbps,band=type=drop,rate=1", adopt=True)),
        resource("br0/x=1", FlowSpec(bridge="br0", flow="x=1,actions=drop")),
    ]
    assert dump_resources(found, SECTIONS) == (
        "bridges:\n  br0:  # f.yaml:1:1\n\n"
        "bonds:\n  bond0:  # f.yaml:1:1\n    bridge: br0\n    interfaces: [a, b]\n\n"
        "flows:\n  br0:\n    - x=1,actions=drop  # f.yaml:1:1\n\n"
        "meters:\n  br0:\n    2:  # f.yaml:1:1\n      meter: kbps,band=type=drop,rate=1\n      adopt: true\n"
    )


def test_a_kind_without_a_section_is_not_left_out_silently() -> None:
    with pytest.raises(LookupError, match="bridge"):
        dump_resources([resource("br0", BridgeSpec())], [])


def conforms(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """As much of JSON Schema as `json_schema` uses; an unknown keyword fails the test."""
    kinds = {"object": dict, "array": list, "string": str, "null": type(None), "boolean": bool}

    def is_a(kind: str) -> bool:
        if kind in {"number", "integer"}:
            return isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, kinds[kind])

    checks: dict[str, Any] = {
        "type": lambda want: any(is_a(kind) for kind in ([want] if isinstance(want, str) else want)),
        "$ref": lambda ref: conforms(value, root["$defs"][ref.removeprefix("#/$defs/")], root),
        "anyOf": lambda options: any(conforms(value, option, root) for option in options),
        "enum": lambda options: value in options,
        "const": lambda want: value == want,
        "pattern": lambda want: not isinstance(value, str) or re.search(want, value) is not None,
        "maxLength": lambda want: not isinstance(value, str) or len(value) <= want,
        "minimum": lambda want: not isinstance(value, int) or value >= want,
        "maximum": lambda want: not isinstance(value, int) or value <= want,
        "minItems": lambda want: not isinstance(value, list) or len(value) >= want,
        "items": lambda want: not isinstance(value, list) or all(conforms(item, want, root) for item in value),
        "minProperties": lambda want: not isinstance(value, dict) or len(value) >= want,
        "maxProperties": lambda want: not isinstance(value, dict) or len(value) <= want,
        "required": lambda want: not isinstance(value, dict) or set(want) <= set(value),
        "propertyNames": lambda want: not isinstance(value, dict) or all(conforms(str(k), want, root) for k in value),
        "properties": lambda want: (
            not isinstance(value, dict) or all(conforms(value[k], want[k], root) for k in value if k in want)
        ),
        "additionalProperties": lambda want: (
            not isinstance(value, dict)
            or all(
                want is not False and conforms(value[k], want, root)
                for k in value
                if k not in schema.get("properties", {})
                and not any(re.search(pattern, str(k)) for pattern in schema.get("patternProperties", {}))
            )
        ),
    }
    says_nothing = {"$schema", "$defs", "title", "description", "default", "patternProperties"}
    return all(checks[keyword](want) for keyword, want in schema.items() if keyword not in says_nothing)


def documents(path: Path) -> list[Any]:
    return [document for file in sorted(path.glob("*.yaml")) for document in yaml.safe_load_all(file.read_text())]


def test_the_editors_schema_takes_the_example() -> None:
    schema = json_schema(SECTIONS)
    assert documents(EXAMPLE)
    assert all(conforms(document, schema, schema) for document in documents(EXAMPLE))


@pytest.mark.parametrize("case", ["wrong-values", "unknown-keys", "shapes", "names", "apply-to"])
def test_the_editors_schema_refuses_what_the_rules_refuse(case: str) -> None:
    schema = json_schema(SECTIONS)
    texts = [part for file in (GOLDEN / case).glob("*.yaml") for part in file.read_text().split("---\n")]
    wrong = [yaml.safe_load(text) for text in texts if "? [" not in text]
    assert not any(conforms(document, schema, schema) for document in wrong)


def test_the_editors_schema_describes_every_section_and_takes_an_empty_document() -> None:
    schema = json_schema(SECTIONS)
    assert all(schema["properties"][section.name]["description"] for section in SECTIONS)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for document in (
        None,
        {},
        {"bridges": None},
        {"bridges": {"br0": None}},
        {"x-any": [1]},
        {"flows": {"b": ["a", {"flow": "a"}]}},
    ):
        assert conforms(document, schema, schema)


def test_the_example_is_what_it_says() -> None:
    loaded = load_tree(EXAMPLE, node="network", roles=frozenset({"network"}), sections=SECTIONS)
    assert (loaded.problems, loaded.warnings, loaded.files) == ((), (), 2)
    content = read_file(dump_resources(loaded.resources, SECTIONS).encode(), "r.yaml", SECTIONS)
    again = [one.resource for document in content.documents for one in document.declared]
    assert Snapshot.of(again).revision == Snapshot.of(loaded.resources).revision
