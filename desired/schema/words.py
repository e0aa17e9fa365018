"""What pydantic found wrong with a spec, in the operator's words: what a field must be, and what it is instead.

Called by `desired.schema.check` only. What a field must be is read from its annotation, so that a new spec needs no
text here; a validator of a spec that raises ValueError speaks for itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from desired.schema.problem import did_you_mean

Loc = tuple[str | int, ...]

_LONGEST = 60
_NUMBER = re.compile(r"-?[0-9.]{1,20}")


@dataclass(frozen=True, slots=True)
class Must:
    """Metadata of an annotated type: what its values are, in words, as in ``an IPv4 or IPv6 address``."""

    words: str


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing wrong with a spec. `loc` is the place in the data, empty when it is about the whole."""

    loc: Loc
    message: str
    hint: str = ""
    on_key: bool = False


def complaints(spec: type[BaseModel], data: Mapping[str, Any], error: ValidationError) -> list[Complaint]:
    """Return one complaint for each place in `data`, however many branches of a union pydantic tried there."""
    places: dict[tuple[Loc, bool], list[Any]] = {}
    for detail in error.errors(include_url=False):
        loc, on_key = _real(detail["loc"], data, missing=detail["type"] == "missing")
        places.setdefault((loc, on_key), []).append(detail)
    for loc, on_key in [place for place, details in places.items() if details[0]["type"] == "too_short"]:
        if any(len(other) > len(loc) and other[: len(loc)] == loc for other, _ in places):
            del places[loc, on_key]  # what is wrong with an entry made pydantic count without it
    return [_complaint(spec, data, loc, details, on_key=on_key) for (loc, on_key), details in places.items()]


def _real(loc: Loc, data: Any, *, missing: bool) -> tuple[Loc, bool]:
    """Drop what pydantic adds to a place in the data: names of union branches, '[key]' for a mapping's key."""
    if missing:
        return loc, False
    real: list[str | int] = []
    for step in loc:
        if (isinstance(data, Mapping) and step in data) or (isinstance(data, list) and isinstance(step, int)):
            data = data[step]  # type: ignore[index]  # mypy joins the two branches
            real.append(step)
    return tuple(real), loc[-1:] == ("[key]",)


def _complaint(spec: type[BaseModel], data: Any, loc: Loc, details: list[Any], *, on_key: bool) -> Complaint:
    said = next((str(detail["ctx"]["error"]) for detail in details if detail["type"] == "value_error"), "")
    if not loc:
        field = said.split(maxsplit=1)[0].rstrip(",:") if said else ""
        return Complaint((field,) if field in data else (), said or str(details[0]["msg"]))
    field, must = str(loc[0]), _must(spec, loc)
    label = _label(loc)
    kind = details[0]["type"]
    if kind == "missing":
        return Complaint((), f"{label} is missing", f"add {label}: {must}")
    if said:
        named = said if label in said else f"{label}: {said}"
        return Complaint(loc, named, f"{field} must be {must}" if len(details) > 1 else "", on_key)
    if kind == "extra_forbidden":
        key, known = str(loc[-1]), _keys(spec, loc[:-1])
        hint = did_you_mean(key, known) or f"known here: {', '.join(known)}"
        return Complaint(loc, f"unknown key {key!r}", hint, on_key=True)
    value = data
    for step in loc:
        value = value[step]
    if kind in {"too_short", "too_long"}:
        bound = details[0]["ctx"].get("min_length", details[0]["ctx"].get("max_length"))
        least = "at least" if kind == "too_short" else "at most"
        entries = "entry" if bound == 1 else "entries"
        return Complaint(loc, f"{label} must have {least} {bound} {entries}, not {len(value)}")
    return Complaint(loc, f"{label} must be {must}, not {_shown(value)}", _hint(value, spec, loc), on_key)


def _hint(value: Any, spec: type[BaseModel], loc: Loc) -> str:
    if value is None:
        return "write '' for an empty text" if _must(spec, loc) == "a text" else ""
    if not isinstance(value, str):
        return ""
    annotation, _ = _annotation(spec, loc)
    if get_origin(annotation) in {tuple, list}:
        return f"like [{value}]"
    return did_you_mean(value, _choices(annotation))


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return text_shown(value)
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, Sequence) else str(value)


def text_shown(text: str) -> str:
    """Quote a text for a message, shortened; a number stands as it is."""
    if _NUMBER.fullmatch(text):
        return text
    return repr(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def _label(loc: Loc) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")


def _must(spec: type[BaseModel], loc: Loc) -> str:
    return expected(*_annotation(spec, loc))


def _annotation(spec: type[BaseModel], loc: Loc) -> tuple[Any, Sequence[Any]]:
    """Return the annotation, and its metadata, of a place: a field's, an item's for a list, a value's for a mapping."""
    annotation: Any = spec
    metadata: Sequence[Any] = ()
    for step in loc:
        annotation, metadata = _within(annotation, step)
    return annotation, metadata


def _within(annotation: Any, step: str | int) -> tuple[Any, Sequence[Any]]:
    for option in _options(annotation):
        if _is_model(option):
            field = option.model_fields.get(str(step))
            return (field.annotation, field.metadata) if field is not None else (Any, ())
        if get_origin(option) in {tuple, list, dict}:
            inner = get_args(option)
            return (inner[-1] if inner[-1] is not Ellipsis else inner[0]), ()
    return Any, ()


def _options(annotation: Any) -> list[Any]:
    """What a value may be, without the union around it."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _options(args[0])
    return [each for arg in args for each in _options(arg)] if origin in {Union, UnionType} else [annotation]


def _keys(spec: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that a mapping at this place may have."""
    models = [option for option in _options(_annotation(spec, loc)[0]) if _is_model(option)]
    return [key for model in models for key in model.model_fields]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def expected(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Say in words what a value of this annotation is, as in ``a whole number from 0 to 4095``."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return expected(args[0], args[1:])
    said = [item.words for item in metadata if isinstance(item, Must)]
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(expected(arg) for arg in args if arg is not NoneType))
    choices = said or _choices(annotation)
    if choices:
        return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
    if origin in {tuple, list, frozenset}:
        return f"a list, each entry {expected(args[0])}"
    if origin is dict:
        return "a mapping of texts"
    return _like_that(annotation) if _is_model(annotation) else _plain(annotation, metadata)


def _like_that(model: type[BaseModel]) -> str:
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    such_as = needed or list(model.model_fields)[:1]
    return f"a mapping such as {{{', '.join(f'{name}: …' for name in such_as)}}}"


def _plain(annotation: Any, metadata: Sequence[Any]) -> str:
    words = {int: f"a whole number{_range(metadata)}", float: f"a number{_range(metadata)}", bool: "true or false"}
    return words.get(annotation, "a text")


def _choices(annotation: Any) -> list[str]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [str(arg) for arg in args]
    if origin is Annotated:
        return _choices(args[0])
    if origin in {Union, UnionType}:
        return [choice for arg in args for choice in _choices(arg)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    return []


def _range(metadata: Sequence[Any]) -> str:
    bounds: dict[str, Any] = {}
    for item in metadata:
        for bound in item.metadata if isinstance(item, FieldInfo) else [item]:
            bounds |= {name: getattr(bound, name) for name in ("gt", "ge", "le") if hasattr(bound, name)}
    if {"ge", "le"} <= bounds.keys():
        return f" from {bounds['ge']} to {bounds['le']}"
    least = f", {bounds['ge']} or more" if "ge" in bounds else f", more than {bounds['gt']}" if "gt" in bounds else ""
    return least + (f", at most {bounds['le']}" if "le" in bounds else "")
