"""The data of `reconciler.report` and `reconciler.contract` as JSON and back, exactly.

Directed by the type hints of the dataclasses, so a new field needs nothing here. A resource is ``port/patch-tun`` and
a scope ``flow/br-int``, as people write them (where either may stand: ``{"scope": "flow/br-int"}``). A controller's own
action payload is not written and reads back as None. Used by the control socket, the HTTP listener, the client,
and for reading the journal. What comes in is checked: WireError names the field; unknown keys are ignored, so that an
older client reads a newer daemon.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from desired.resource import ResourceId
from reconciler.contract import Scope
from reconciler.errors import DriverError

T = TypeVar("T")


class WireError(DriverError):
    """What was received is not what this program understands."""


class _Codec(NamedTuple):
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def encode(value: Any, hint: Any = None) -> Any:
    """JSON-ready data for a dataclass, or for a value of type `hint` (``Sequence[PassRecord]``)."""
    return _codec(hint or type(value)).encode(value)


def decode(hint: type[T], data: Any) -> T:
    """A value of type `hint` from what `json.loads` gave. Raises WireError."""
    decoded: T = _codec(hint).decode(data)
    return decoded


def dumps(value: Any, hint: Any = None) -> str:
    """One line of JSON."""
    return json.dumps(encode(value, hint), allow_nan=False)


def loads(hint: type[T], text: str | bytes) -> T:
    """The inverse of `dumps`. Raises WireError."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise WireError(f"not JSON: {error}") from error
    return decode(hint, data)


def _codec(hint: Any) -> _Codec:
    found: _Codec = _cached(hint)
    return found


@cache
def _cached(hint: Any) -> _Codec:
    if found := _SIMPLE.get(hint):
        return found
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union(args)
    if origin in (tuple, Sequence) and args[1:] in ((), (...,)):
        return _many(_codec(args[0]), tuple)
    if origin is frozenset:
        return _many(_codec(args[0]), frozenset)
    if origin in (dict, Mapping) and args[0] is str:
        return _mapping(_codec(args[1]))
    return _class(hint)


def _class(hint: Any) -> _Codec:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass(hint)
    raise TypeError(f"{hint} has no form in JSON here")


def _expect(*kinds: type) -> Callable[[Any], Any]:
    wanted = " or ".join(kind.__name__ for kind in kinds)

    def check(data: Any) -> Any:
        if not isinstance(data, kinds) or (isinstance(data, bool) and bool not in kinds):
            raise WireError(f"expected {wanted}, got {data!r:.100}")
        return data

    return check


def _same(value: Any) -> Any:
    return value


def _none(_value: Any) -> None:
    return None


def _number(data: Any) -> float:
    return float(_expect(int, float)(data))


def _resource(data: Any) -> ResourceId:
    kind, slash, name = _expect(str)(data).partition("/")
    if not slash:
        raise WireError(f"expected KIND/NAME, got {data!r:.100}")
    return ResourceId(kind, name)


def _scope(data: Any) -> Scope:
    controller, _, name = _expect(str)(data).partition("/")
    return Scope(controller, name)


_SIMPLE: dict[Any, _Codec] = {
    str: _Codec(_same, _expect(str)),
    int: _Codec(int, _expect(int)),
    float: _Codec(_same, _number),
    bool: _Codec(_same, _expect(bool)),
    type(None): _Codec(_none, _none),
    Any: _Codec(_none, _none),
    ResourceId: _Codec(str, _resource),
    Scope: _Codec(str, _scope),
}


def _many(item: _Codec, build: Callable[[Any], Any]) -> _Codec:
    def write(values: Any) -> Any:
        items = [item.encode(value) for value in values]
        return items if build is tuple else sorted(items)

    return _Codec(write, lambda data: build(item.decode(each) for each in _expect(list, tuple)(data)))


def _mapping(item: _Codec) -> _Codec:
    return _Codec(
        lambda value: {str(key): item.encode(value[key]) for key in value},
        lambda data: {key: item.decode(each) for key, each in _expect(dict)(data).items()},
    )


def _enum(hint: type[Enum]) -> _Codec:
    def read(data: Any) -> Enum:
        try:
            return hint(data)
        except ValueError:
            raise WireError(f"{data!r:.100} is no {hint.__name__}") from None

    return _Codec(lambda value: value.value, read)


def _union(args: tuple[Any, ...]) -> _Codec:
    some = tuple(arg for arg in args if arg is not type(None))
    inner = _codec(some[0]) if len(some) == 1 else _either(some)
    if len(some) == len(args):
        return inner
    return _Codec(
        lambda value: None if value is None else inner.encode(value),
        lambda data: None if data is None else inner.decode(data),
    )


def _either(some: tuple[Any, ...]) -> _Codec:
    """A thing that is a resource or a scope: the key says which."""
    if set(some) != {ResourceId, Scope}:
        raise TypeError(f"{some} cannot be told apart in JSON")

    def read(data: Any) -> Any:
        for key, parse in (("scope", _scope), ("resource", _resource)):
            if key in _expect(dict)(data):
                return parse(data[key])
        raise WireError(f"expected a resource or a scope, got {data!r:.100}")

    return _Codec(lambda value: {"scope" if isinstance(value, Scope) else "resource": str(value)}, read)


def _dataclass(hint: type) -> _Codec:
    hints = get_type_hints(hint)
    fields = {field.name: field for field in dataclasses.fields(hint)}
    codecs = {name: _codec(hints[name]) for name in fields}
    needed = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and hints[name] is not Any
    }

    def write(value: Any) -> dict[str, Any]:
        return {name: codec.encode(getattr(value, name)) for name, codec in codecs.items() if hints[name] is not Any}

    def read(data: Any) -> Any:
        _expect(dict)(data)
        if missing := sorted(needed - data.keys()):
            raise WireError(f"{hint.__name__} lacks {', '.join(missing)}")
        values = {}
        for name, codec in codecs.items():
            if name in data or hints[name] is Any:
                values[name] = _field(f"{hint.__name__}.{name}", codec, data.get(name))
        return hint(**values)

    return _Codec(write, read)


def _field(name: str, codec: _Codec, data: Any) -> Any:
    try:
        return codec.decode(data)
    except WireError as error:
        raise WireError(f"{name}: {error}") from error
