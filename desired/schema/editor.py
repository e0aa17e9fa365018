"""The JSON Schema (draft 2020-12) of a document, for editors: made from the same sections and specs that check it.

An editor's schema is wider than the rules: what a validator of a spec says (addresses, what fits a port's type) is
only found by loading. Printed by `reconcile schema`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from desired.schema.reading import ApplyTo
from desired.schema.section import Pairs, Section

_REFS = "#/$defs/{model}"
_SCALAR = {"type": ["string", "number", "boolean"]}


def json_schema(sections: Iterable[Section]) -> dict[str, Any]:
    """Return the schema of one document with these sections."""
    defs: dict[str, Any] = {}
    properties: dict[str, Any] = {
        "apply_to": _define(ApplyTo, "apply_to", frozenset(), defs)
        | {"description": "For whom this document is; without it, for every node."},
        "mode": {"enum": ["enforce", "observe"], "description": "The default of `mode` for this document."},
    }
    for section in sections:
        body = {} if isinstance(section, Pairs) else _define(section.spec, section.name, section.given, defs)
        properties[section.name] = {
            "description": f"{section.description} Like {section.example}".strip(),
            **section.schema(body),
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Desired state of nodes",
        "type": ["object", "null"],
        "additionalProperties": False,
        "patternProperties": {"^x-": {"description": "Not read: a place for anchors."}},
        "properties": properties,
        "$defs": defs,
    }


def _define(model: type[BaseModel], name: str, given: frozenset[str], defs: dict[str, Any]) -> dict[str, Any]:
    """Put the schema of a body into `defs` and return a reference to it. `given` fields are not part of a body."""
    schema = model.model_json_schema(ref_template=_REFS)
    defs |= schema.pop("$defs", {})
    schema["properties"] = {field: _written(rule) for field, rule in schema["properties"].items() if field not in given}
    required = [field for field in schema.pop("required", []) if field not in given]
    if required:
        schema["required"] = required
    else:
        schema["type"] = ["object", "null"]
    schema.setdefault("additionalProperties", False)
    defs[name] = schema
    return {"$ref": f"#/$defs/{name}"}


def _written(rule: dict[str, Any]) -> dict[str, Any]:
    """Widen a map of texts: numbers and booleans are taken as their text."""
    values = rule.get("additionalProperties")
    if isinstance(values, dict) and values.get("type") == "string":
        return {**rule, "additionalProperties": _SCALAR}
    return rule
