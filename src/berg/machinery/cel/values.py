"""Values of expressions. JSON is itself: dict, list, str, int, float, bool, None. The rest has classes here.

Numbers of other kinds are subclasses of int, so that arithmetic is Python's; a value's exact class says what it is.
Lists of a schema's `x-kubernetes-list-type` are `SetList` and `MapList`, which are equal in any order and add up as
server-side apply would merge them.

Source: cel-spec doc/langdef.md; k8s.io/apiserver pkg/cel/common/valuesunstructured.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from berg.machinery.cel.types import Type


class EvaluationError(Exception):
    """It could not be evaluated for these values."""

    cost = 0
    """what had been spent by then"""


class CostExceeded(EvaluationError):
    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


NO_OVERLOAD = "no such overload"


class UInt(int):
    __slots__ = ()


class Duration(int):
    """Nanoseconds."""

    __slots__ = ()


class Timestamp(int):
    """Nanoseconds since 1970."""

    __slots__ = ()


class Optional:
    __slots__ = ("present", "value")

    def __init__(self, value: Any, present: bool = True) -> None:
        self.value = value
        self.present = present


NONE = Optional(None, present=False)


@dataclass(frozen=True, slots=True)
class Named:
    """A value of one of Kubernetes' own types: a quantity, a URL, an address …"""

    type: str
    value: Any


class Record:
    """A value whose fields are made when they are asked for: `variables`, an initialized `Object`."""

    __slots__ = ()

    def has(self, name: str) -> bool:
        raise NotImplementedError

    def get(self, name: str) -> Any:
        """Raises EvaluationError."""
        raise NotImplementedError


class Object(Record):
    """What `Object{…}` and `JSONPatch{…}` make. A field that an absent optional was given to is not there."""

    __slots__ = ("fields", "type")

    def __init__(self, type_: str, fields: dict[str, Any]) -> None:
        self.type = type_
        self.fields = fields

    def has(self, name: str) -> bool:
        return name in self.fields

    def get(self, name: str) -> Any:
        if name not in self.fields:
            raise EvaluationError(f"no such key: {name}")
        return self.fields[name]


class SetList(list[Any]):
    __slots__ = ()


class MapList(list[Any]):
    __slots__ = ("keys",)

    def __init__(self, values: list[Any], keys: tuple[str, ...]) -> None:
        super().__init__(values)
        self.keys = keys

    def of(self, element: Any) -> tuple[Any, ...]:
        return tuple(element.get(k) if isinstance(element, dict) else None for k in self.keys)


NUMBERS = frozenset((int, UInt, float))
_PLAIN = frozenset((int, UInt, float, str, bool, bytes, type(None), Duration, Timestamp, Named))


def equal(a: Any, b: Any) -> bool:
    of_a, of_b = type(a), type(b)
    if of_a is of_b and of_a in _PLAIN:
        return bool(a == b)
    if of_a in NUMBERS and of_b in NUMBERS:
        return bool(a == b)
    if isinstance(a, list) and isinstance(b, list):
        return _equal_lists(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return len(a) == len(b) and all(k in b and equal(v, b[k]) for k, v in a.items())
    if of_a is Optional and of_b is Optional:
        return a.present == b.present and (not a.present or equal(a.value, b.value))
    if of_a is Object and of_b is Object:
        return a.type == b.type and equal(a.fields, b.fields)
    if of_a is Type and of_b is Type:
        return bool(a.name == b.name)
    return False


def _equal_lists(a: list[Any], b: list[Any]) -> bool:
    if len(a) != len(b):
        return False
    unordered = a if isinstance(a, SetList | MapList) else b
    if isinstance(unordered, SetList):
        return all(contains(b, x) for x in a) and all(contains(a, x) for x in b)
    if isinstance(unordered, MapList):
        known = {_hashable(unordered.of(x)): x for x in b}
        return all((k := _hashable(unordered.of(x))) in known and equal(x, known[k]) for x in a)
    return all(map(equal, a, b))


def contains(values: list[Any], wanted: Any) -> bool:
    if type(wanted) is str:
        return wanted in values  # nothing else is equal to a string
    return any(equal(v, wanted) for v in values)


def joined(a: list[Any], b: list[Any]) -> list[Any]:
    """`a + b`, as the kind of list `a` is adds up."""
    if isinstance(a, SetList):
        return SetList([*a, *(x for x in b if not contains(a, x))])
    if isinstance(a, MapList):
        new = {_hashable(a.of(x)): x for x in b}
        kept = [new.pop(_hashable(a.of(x)), x) for x in a]
        return MapList([*kept, *new.values()], a.keys)
    return a + b


def _hashable(value: Any) -> Any:
    return repr(value)


def size(value: Any) -> int:
    """What evaluating something over it is priced by."""
    if isinstance(value, str | bytes | list | dict):
        return len(value)
    if type(value) is Optional and value.present:
        return size(value.value)
    if type(value) is Named:
        return 4 if value.type == "net.IP" and value.value.version == 4 else 16 if value.type.startswith("net.") else 1
    return 1


def plain(value: Any) -> Any:
    """As JSON: what an expression gives to someone who knows nothing of it."""
    if isinstance(value, Object):
        return {k: plain(v) for k, v in value.fields.items()}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, UInt):
        return int(value)
    if isinstance(value, Optional):
        return plain(value.value) if value.present else None
    return value


def walk(value: Any) -> Iterator[Any]:
    """The scalars of a value."""
    if isinstance(value, dict):
        for k, v in value.items():
            yield k
            yield from walk(v)
    elif isinstance(value, list):
        for v in value:
            yield from walk(v)
    else:
        yield value
