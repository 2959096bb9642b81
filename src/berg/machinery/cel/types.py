"""Types of expressions, and when one may stand where another is wanted.

A type is a kind, a name where kinds have several types, and parameters. Type parameters of a function's signature
(`A`, `B`) are exchanged for fresh ones at each call; what they turn out to be is kept in a `Bindings`.

Source: cel-spec doc/langdef.md "Gradual Type Checking"; cel-go checker/types.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


class Type:
    __slots__ = ("fields", "kind", "name", "params", "shape")

    def __init__(self, kind: str, name: str = "", params: tuple[Type, ...] = (), shape: Any = None) -> None:
        self.kind = kind
        self.name = name or kind
        self.params = params
        self.shape = shape
        """of a value described by a schema: what is known of it besides its type (`schema.Shape`)"""
        self.fields: Mapping[str, Type] | None = None
        """of an object: its fields; None where they are not known"""

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Type)
            and self.kind == other.kind
            and self.name == other.name
            and self.params == other.params
        )

    def __hash__(self) -> int:
        return hash((self.kind, self.name, self.params))

    def __str__(self) -> str:
        if self.kind == "error":
            return "!error!"
        if not self.params:
            return self.name
        return f"{self.name}({', '.join(map(str, self.params))})"

    __repr__ = __str__


BOOL, INT, UINT, DOUBLE = Type("bool"), Type("int"), Type("uint"), Type("double")
STRING, BYTES, DURATION, TIMESTAMP = Type("string"), Type("bytes"), Type("duration"), Type("timestamp")
NULL, DYN, ERROR, ANY_TYPE = Type("null"), Type("dyn"), Type("error"), Type("type")
SCALARS = frozenset(("bool", "double", "duration", "int", "timestamp", "uint"))
_SIMPLE = {t.kind: t for t in (BOOL, INT, UINT, DOUBLE, STRING, BYTES, DURATION, TIMESTAMP, NULL, DYN, ANY_TYPE)}
_NULLABLE = frozenset(("opaque", "struct", "duration", "timestamp"))
_OPAQUE = frozenset(("net.IP", "net.CIDR", "optional_type"))


def list_of(element: Type) -> Type:
    return Type("list", params=(element,))


def map_of(key: Type, value: Type) -> Type:
    return Type("map", params=(key, value))


def optional_of(value: Type) -> Type:
    return Type("opaque", "optional_type", (value,))


def type_of(value: Type) -> Type:
    return Type("type", params=(value,))


def is_optional(t: Type) -> bool:
    return t.kind == "opaque" and t.name == "optional_type"


def struct(name: str, fields: Mapping[str, Type]) -> Type:
    made = Type("struct", name)
    made.fields = fields
    return made


@dataclass(frozen=True, slots=True)
class Overload:
    args: tuple[Type, ...]
    """of a method: the receiver first"""
    result: Type
    member: bool
    generic: bool


# ---- signatures as text


@lru_cache(maxsize=512)
def read(text: str) -> Type:
    """`map(string,list(A))`"""
    name, _, rest = text.partition("(")
    params = tuple(read(p) for p in _split(rest[:-1])) if rest else ()
    if name in _SIMPLE and not params:
        return _SIMPLE[name]
    if name == "optional":
        return optional_of(params[0])
    if name in ("list", "map", "type"):
        return Type(name, params=params)
    if len(name) == 1:
        return Type("param", name)
    if name in _OPAQUE:
        return Type("opaque", name, params)
    return struct(name, {})


_SIGNATURE = re.compile(r"(?:(\S+)\.)?\((.*)\) -> (\S+)")


def overload(text: str) -> Overload:
    """`string.(string,int) -> bool` is a method, `(string) -> bool` is none."""
    match = _SIGNATURE.fullmatch(text.strip())
    assert match is not None, text
    receiver, args, result = match.groups()
    parts = ([receiver] if receiver else []) + _split(args)
    types = tuple(read(p) for p in parts)
    made = read(result)
    return Overload(types, made, bool(receiver), any(_is_generic(t) for t in (*types, made)))


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]] if text else []


def _is_generic(t: Type) -> bool:
    return t.kind == "param" or any(map(_is_generic, t.params))


# ---- what fits


class Bindings:
    """What type parameters turned out to be."""

    def __init__(self) -> None:
        self._bound: dict[str, Type] = {}
        self._made = 0

    def fresh(self) -> Type:
        self._made += 1
        return Type("param", f"_var{self._made}")

    def fit(self, given: Sequence[Type], wanted: Sequence[Type]) -> bool:
        """Whether all fit; what parameters would have to be is only kept if they do."""
        before = dict(self._bound)
        if len(given) == len(wanted) and all(map(self._fits, given, wanted)):
            return True
        self._bound = before
        return False

    def instance(self, o: Overload) -> tuple[Sequence[Type], Type]:
        """The signature with parameters of its own."""
        if not o.generic:
            return o.args, o.result
        own: dict[str, Type] = {}
        return [self._own(t, own) for t in o.args], self._own(o.result, own)

    def _own(self, t: Type, own: dict[str, Type]) -> Type:
        if t.kind == "param":
            if t.name not in own:
                own[t.name] = self.fresh()
            return own[t.name]
        if not t.params:
            return t
        return Type(t.kind, t.name, tuple(self._own(p, own) for p in t.params))

    def known(self, t: Type, *, free_is_dyn: bool = False) -> Type:
        """The type with its parameters exchanged for what they are."""
        while t.kind == "param" and t.name in self._bound:
            t = self._bound[t.name]
        if t.kind == "param":
            return DYN if free_is_dyn else t
        if not t.params:
            return t
        params = tuple(self.known(p, free_is_dyn=free_is_dyn) for p in t.params)
        return t if all(map(_same, params, t.params)) else Type(t.kind, t.name, params, t.shape)

    def _fits(self, a: Type, b: Type) -> bool:
        if b.kind == "param":
            fits, bound = self._bind(a, b)
            if fits or bound:
                return fits
        if a.kind == "param":
            return self._bind(b, a)[0]
        if a.kind in ("dyn", "error") or b.kind in ("dyn", "error"):
            return True
        if a.kind == "null" or b.kind == "null":
            return a.kind == b.kind or (b if a.kind == "null" else a).kind in _NULLABLE
        if a.kind == "type":
            return b.kind == "type"
        if a.kind in ("opaque", "list", "map"):
            same = a.kind == b.kind and a.name == b.name and len(a.params) == len(b.params)
            return same and all(map(self._fits, a.params, b.params))
        return a == b

    def _bind(self, t: Type, param: Type) -> tuple[bool, bool]:
        """Can the parameter be this; and was it bound before?"""
        if t == param:
            return True, True
        bound = self._bound.get(param.name)
        if bound is not None:
            if t == bound:
                return True, True
            if self._fits(t, bound):
                wider = t if _is_wider(t, bound) else bound
                if not self._mentions(wider, param):
                    self._bound[param.name] = wider
                return True, True
            return False, True
        if self._mentions(t, param):
            return False, False
        self._bound[param.name] = t
        return True, False

    def _mentions(self, t: Type, param: Type) -> bool:
        if t == param:
            return True
        if t.kind == "param":
            bound = self._bound.get(t.name)
            return bound is not None and self._mentions(bound, param)
        return any(self._mentions(p, param) for p in t.params)


def _same(a: Type, b: Type) -> bool:
    return a is b


def general(a: Type, b: Type) -> Type:
    """The more general of two types that fit."""
    return a if _is_wider(a, b) else b


def _is_wider(a: Type, b: Type) -> bool:
    if a.kind in ("dyn", "param"):
        return True
    if b.kind in ("dyn", "param") or a.kind != b.kind:
        return False
    if a.kind == "type":
        return True
    if a.kind in ("opaque", "list", "map"):
        return a.name == b.name and len(a.params) == len(b.params) and all(map(_is_wider, a.params, b.params))
    return a == b
