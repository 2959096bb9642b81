"""What the functions do: each is registered for the kinds of its arguments, by a decorator where it is written.

    @on("startsWith", "string", "string")

Whatever the checker knew, kinds are looked at again when a function is called, because a value of unknown type is only
known then.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from berg.machinery.cel.types import Type
from berg.machinery.cel.values import (
    NO_OVERLOAD,
    Duration,
    EvaluationError,
    MapList,
    Named,
    Object,
    Optional,
    Record,
    SetList,
    Timestamp,
    UInt,
)

_KINDS: dict[type, str] = {
    bool: "bool",
    int: "int",
    UInt: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    type(None): "null_type",
    list: "list",
    SetList: "list",
    MapList: "list",
    dict: "map",
    Duration: "google.protobuf.Duration",
    Timestamp: "google.protobuf.Timestamp",
    Optional: "optional_type",
    Type: "type",
    Object: "object",
}
_SHORT = {"duration": "google.protobuf.Duration", "timestamp": "google.protobuf.Timestamp"}

_registered: dict[str, list[tuple[tuple[str, ...], Callable[..., Any]]]] = {}


def kind(value: Any) -> str:
    return (
        value.type if type(value) is Named else _KINDS.get(type(value), "map" if isinstance(value, Record) else "dyn")
    )


def on(name: str, *kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`any` is any kind, `number` int, uint or double."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        wanted = tuple(_SHORT.get(k, k) for k in kinds)
        _registered.setdefault(name, []).append((wanted, function))
        return function

    return register


def _fits(wanted: str, found: str) -> bool:
    return wanted in (found, "any") or (wanted == "number" and found in ("int", "uint", "double"))


@cache
def function(name: str) -> Callable[..., Any]:
    """The function of this name, for arguments of whatever kinds."""
    _load()
    choices = _registered.get(name, [])
    if len(choices) == 1 and set(choices[0][0]) <= {"any"}:
        return choices[0][1]
    known: dict[tuple[str, ...], Callable[..., Any]] = {}

    def call(*args: Any) -> Any:
        kinds = tuple(map(kind, args))
        chosen = known.get(kinds)
        if chosen is None:
            for wanted, each in choices:
                if len(wanted) == len(kinds) and all(map(_fits, wanted, kinds)):
                    chosen = known[kinds] = each
                    break
            else:
                raise EvaluationError(NO_OVERLOAD)
        return chosen(*args)

    return call


@cache
def _load() -> None:
    from berg.machinery.cel.library import (  # noqa: F401
        authorizer,
        conversions,
        formats,
        lists,
        network,
        operators,
        quantities,
        text,
        times,
    )


def show(value: Any) -> str:
    """As a message shows it."""
    from berg.machinery.cel.library.text import shown

    return shown(value)
