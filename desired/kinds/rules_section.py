"""The section `rules` of a document: by namespace, readable forms and raw rules, each entry a resource.

``qrouter-1: {floating_ips: {203.0.113.5: 10.0.0.5}, raw: {nat: {POSTROUTING: ["-o qg-1 -j MASQUERADE"]}}}``.
Used by `desired.kinds.sections`; what the entries are is in `desired.kinds.rules`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from desired.kinds.namespace import NamespaceName
from desired.kinds.rules import (
    KERNEL_CHAINS,
    SPECS,
    TABLES,
    FloatingIpSpec,
    MasqueradeSpec,
    OpenPortSpec,
    PortForwardSpec,
    RawRuleSpec,
    RedirectSpec,
    RuleSpec,
    SnatSpec,
)
from desired.resource import Resource, Spec
from desired.schema.check import Entry
from desired.schema.problem import did_you_mean
from desired.schema.render import Lines, body_of, quoted
from desired.schema.section import Section, name_ok
from desired.schema.text import MapNode, Node, Scalar
from desired.schema.walk import Walker

_RAW, _FLOATING = "raw", "floating_ips"
_LISTS: dict[str, type[RuleSpec]] = {
    "snat": SnatSpec,
    "masquerade": MasqueradeSpec,
    "port_forwards": PortForwardSpec,
    "redirects": RedirectSpec,
    "open_ports": OpenPortSpec,
}
_FORMS = (*_LISTS, _FLOATING, _RAW)
_NAMESPACE = frozenset({"namespace"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules(Section):
    """``NAMESPACE: {FORM: …}``."""

    HINTS: ClassVar[Mapping[str, str]] = {
        "snat": "like snat: [{source: 10.0.0.0/24, out: qg-1, to: 203.0.113.1}]",
        "masquerade": "like masquerade: [{source: 10.0.0.0/24, out: eth0}]",
        "port_forwards": "like port_forwards: [{address: 203.0.113.1, port: 80, to: 10.0.0.5}]",
        "redirects": "like redirects: [{destination: 169.254.169.254, port: 80, to_port: 9697}]",
        "open_ports": "like open_ports: [{protocol: tcp, ports: [6082], comment: SPICE}]",
        _FLOATING: "like floating_ips: {203.0.113.5: 10.0.0.5}",
        _RAW: 'like raw: {nat: {PREROUTING: ["-d 203.0.113.5/32 -j DNAT --to-destination 10.0.0.5"]}}',
    }

    @property
    def specs(self) -> tuple[type[Spec], ...]:
        return SPECS

    @property
    def given(self) -> frozenset[str]:
        return frozenset({"namespace", "table", "chain"})

    def entries(self, walker: Walker, node: Node) -> Iterator[Entry]:
        for name, (key, forms) in walker.mapping(node, self.name, hint=self.hint).items():
            path = f"{self.name}.{name}"
            if not name_ok(walker, NamespaceName, key, path):
                continue
            for form, (form_key, body) in walker.mapping(forms, path, hint=self.hint).items():
                yield from self._form(walker, f"{path}.{form}", {"namespace": key}, form_key, body)

    def _form(
        self, walker: Walker, path: str, given: Mapping[str, Scalar], form: Scalar, body: Node
    ) -> Iterator[Entry]:
        hint = self.HINTS.get(form.text, "")
        if form.text in _LISTS:
            for index, item in enumerate(walker.items(body, path, hint=hint)):
                yield Entry(_LISTS[form.text], item, f"{path}[{index}]", given=given, body=item, hint=hint)
        elif form.text == _FLOATING:
            for floating, (key, item) in walker.mapping(body, path, hint=hint).items():
                yield _text_or_body(FloatingIpSpec, "fixed", item, f"{path}.{floating}", {**given, "floating": key})
        elif form.text == _RAW:
            yield from self._raw(walker, path, given, body)
        else:
            message = f"unknown form of rules {form.text!r}"
            suggestion = did_you_mean(form.text, _FORMS) or f"known here: {', '.join(_FORMS)}"
            walker.problems.add(message, form, path=path, hint=suggestion)

    def _raw(self, walker: Walker, path: str, given: Mapping[str, Scalar], body: Node) -> Iterator[Entry]:
        hint = self.HINTS[_RAW]
        for table, (table_key, chains) in walker.mapping(body, path, hint=hint).items():
            if table not in TABLES:
                suggestion = did_you_mean(table, TABLES) or f"tables are {', '.join(TABLES)}"
                walker.problems.add(f"unknown table {table!r}", table_key, path=f"{path}.{table}", hint=suggestion)
                continue
            for chain, (key, rules) in walker.mapping(chains, f"{path}.{table}", hint=hint).items():
                at = f"{path}.{table}.{chain}"
                for index, item in enumerate(walker.items(rules, at, hint=hint)):
                    entry = _text_or_body(
                        RawRuleSpec, "rule", item, f"{at}[{index}]", {**given, "table": table_key, "chain": key}
                    )
                    if not _says(item, "order"):
                        order = replace(key, text=str(index))
                        entry = replace(entry, given={**entry.given, "order": order})
                    yield entry

    def resource_name(self, entry: Entry, spec: Spec) -> str:
        assert isinstance(spec, RuleSpec)
        return f"{spec.namespace}/{spec.words()}"

    # -- writing ----------------------------------------------------------------------------------------------------

    def schema(self, body: Mapping[str, Any]) -> dict[str, Any]:
        forms: dict[str, Any] = {
            name: {"type": ["array", "null"], "items": _schema(spec, _NAMESPACE)} for name, spec in _LISTS.items()
        }
        floating = _schema(FloatingIpSpec, frozenset({"namespace", "floating"}))
        forms[_FLOATING] = {
            "type": ["object", "null"],
            "additionalProperties": {"anyOf": [{"type": "string"}, floating]},
        }
        rules = {"type": ["array", "null"], "items": {"anyOf": [{"type": "string"}, dict(body)]}}
        chains = {"type": ["object", "null"], "additionalProperties": rules}
        forms[_RAW] = {
            "type": ["object", "null"], "additionalProperties": False, "properties": dict.fromkeys(TABLES, chains)
        }  # fmt: skip
        one = {"type": ["object", "null"], "additionalProperties": False, "properties": forms}
        return {"type": ["object", "null"], "additionalProperties": one}

    def render(self, resources: Iterable[Resource]) -> Lines:
        by_namespace: dict[str, list[Resource]] = {}
        for resource in resources:
            by_namespace.setdefault(_spec(resource).namespace, []).append(resource)
        for name in sorted(by_namespace):
            yield f"  {quoted(name)}:", None
            found = by_namespace[name]
            for form, spec in _LISTS.items():
                yield from _list(form, [r for r in found if isinstance(r.spec, spec)])
            yield from _mapping([r for r in found if isinstance(r.spec, FloatingIpSpec)])
            yield from _tables([r for r in found if isinstance(r.spec, RawRuleSpec)])


def _text_or_body(spec: type[Spec], text: str, node: Node, path: str, given: Mapping[str, Scalar]) -> Entry:
    if isinstance(node, Scalar) and not node.null:
        return Entry(spec, node, path, given={**given, text: node})
    return Entry(spec, node, path, given=given, body=node)


def _says(node: Node, name: str) -> bool:
    return isinstance(node, MapNode) and any(isinstance(key, Scalar) and key.text == name for key, _ in node.pairs)


def _spec(resource: Resource) -> RuleSpec:
    assert isinstance(resource.spec, RuleSpec)
    return resource.spec


def _schema(spec: type[Spec], given: frozenset[str]) -> dict[str, Any]:
    schema = spec.model_json_schema(ref_template="#/$defs/{model}")
    schema.pop("$defs", None)
    schema["properties"] = {name: rule for name, rule in schema["properties"].items() if name not in given}
    schema["required"] = [name for name in schema.get("required", []) if name not in given]
    return schema


def _list(form: str, resources: list[Resource]) -> Lines:
    if resources:
        yield f"    {form}:", None
    for resource in resources:
        yield "      -", resource.origin
        for line in body_of(resource.spec, _NAMESPACE):
            yield f"        {line}", None


def _mapping(resources: list[Resource]) -> Lines:
    if resources:
        yield f"    {_FLOATING}:", None
    for resource in resources:
        spec = resource.spec
        assert isinstance(spec, FloatingIpSpec)
        given = frozenset({"namespace", "floating"})
        yield from _short(f"{quoted(spec.floating)}:", "fixed", resource, given, "      ")


def _tables(resources: list[Resource]) -> Lines:
    if resources:
        yield f"    {_RAW}:", None
    for table in TABLES:
        chains: dict[str, list[tuple[RawRuleSpec, Resource]]] = {}
        for resource in resources:
            if isinstance(resource.spec, RawRuleSpec) and resource.spec.table == table:
                chains.setdefault(resource.spec.chain, []).append((resource.spec, resource))
        if chains:
            yield f"      {table}:", None
        for chain in sorted(chains, key=lambda name: (name not in KERNEL_CHAINS, name)):
            yield f"        {quoted(chain)}:", None
            members = sorted(chains[chain], key=lambda one: one[0].place_in_order())
            for index, (spec, resource) in enumerate(members):
                place = frozenset({"order"}) if spec.order == index else frozenset()
                yield from _short("-", "rule", resource, frozenset({"namespace", "table", "chain"}) | place, " " * 10)


def _short(lead: str, text: str, resource: Resource, given: frozenset[str], indent: str) -> Lines:
    """An entry that is only its text, or its body in lines."""
    lines = body_of(resource.spec, given)
    if len(lines) == 1:
        yield f"{indent}{lead} {lines[0].removeprefix(f'{text}: ')}", resource.origin
        return
    yield f"{indent}{lead}", resource.origin
    for line in lines:
        yield f"{indent}  {line}", None
