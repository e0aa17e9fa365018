"""Writing resources as YAML that a person reads and that loads into the same resources: `reconcile render`.

Values are written as their text; quotes only where a reader of YAML would otherwise see something else. The header
of each entry has a comment saying where it was declared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from desired.resource import Origin, Resource, Spec

if TYPE_CHECKING:
    from desired.schema.section import Section

Lines = Iterator[tuple[str, Origin | None]]
"""Lines of YAML, those that begin an entry with the place it came from."""

_PLAIN = re.compile(r"[A-Za-z0-9_./](?:[^:#\x00-\x1f\x7f-\uffff]|:(?! |$)|(?<! )#)*(?<! )")
_SAFE_IN_BRACKETS = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./:@+-]*(?<!:)")
_NULLS = frozenset({"null", "Null", "NULL"})


def dump_resources(resources: Iterable[Resource], sections: Iterable[Section]) -> str:
    """Render resources as one YAML document, sorted. Loading it gives the same ids and generations.

    Of several sections with one spec, the first that renders it is used. Raises LookupError for a kind of no section.
    """
    by_spec: dict[type[Spec], list[Resource]] = {}
    for resource in sorted(resources, key=lambda resource: resource.id):
        by_spec.setdefault(type(resource.spec), []).append(resource)
    blocks = []
    for section in sections:
        mine = [r for spec in section.specs for r in by_spec.get(spec, []) if section.takes(r)]
        lines = list(section.render(mine))
        if lines:
            for spec in section.specs:
                left = [r for r in by_spec.pop(spec, []) if not section.takes(r)]
                by_spec |= {spec: left} if left else {}
            blocks.append("\n".join([f"{section.name}:", *(_commented(line, origin) for line, origin in lines)]))
    if by_spec:
        raise LookupError(f"no section for {', '.join(sorted(spec.kind for spec in by_spec))}")
    return "\n\n".join(blocks) + "\n" if blocks else ""


def _commented(line: str, origin: Origin | None) -> str:
    return line if origin is None else f"{line}  # {origin}"


def body_of(spec: Spec, given: frozenset[str]) -> list[str]:
    """Return the settings of a spec that are not its defaults, one line each; those it cannot do without first."""
    settings = spec.model_dump(mode="json", exclude_defaults=True, exclude=set(given))
    names = sorted(settings, key=lambda name: not type(spec).model_fields[name].is_required())
    return [f"{name}: {_written(settings[name])}" for name in names]


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{quoted(str(key), inside=True)}: {_inside(value[key])}" for key in sorted(value))
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(_inside(item) for item in value)}]"
    return _scalar(value, inside=False)


def _inside(value: Any) -> str:
    return _written(value) if isinstance(value, Mapping | list) else _scalar(value, inside=True)


def _scalar(value: Any, *, inside: bool) -> str:
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    return quoted(str(value), inside=inside)


def quoted(text: str, *, inside: bool = False) -> str:
    """Return a scalar that is read as `text`: plain when it can be. `inside` brackets or braces, commas count."""
    pattern = _SAFE_IN_BRACKETS if inside else _PLAIN
    if pattern.fullmatch(text) and text not in _NULLS:
        return text
    return json.dumps(text, ensure_ascii=False)
