"""The tree of an expression, as the parser builds it and the checker fills it in.

Every node knows the offset it is told of in messages (`at`), and, once checked, its type. A call knows the overloads
its arguments fit. Macros are gone from the tree: `all`, `map` and their kin are comprehensions, which keep the macro's
own parts beside (`Macro`), because those are evaluated faster than the fold they stand for.

Source: cel-spec proto/cel/expr/syntax.proto.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from berg.machinery.cel.types import Overload, Type


@dataclass(slots=True, eq=False)
class Node:
    at: int
    type: Type = field(init=False)


@dataclass(slots=True, eq=False)
class Literal(Node):
    value: Any


@dataclass(slots=True, eq=False)
class Ident(Node):
    name: str


@dataclass(slots=True, eq=False)
class Select(Node):
    operand: Node
    name: str
    test: bool = False
    """only asks whether the field is there: `has()`"""
    qualified: str = ""
    """set by the checker where the whole chain is one name (`net.IP`)"""


@dataclass(slots=True, eq=False)
class Call(Node):
    function: str
    target: Node | None
    args: list[Node]
    overloads: tuple[Overload, ...] = ()


@dataclass(slots=True, eq=False)
class List(Node):
    elements: list[Node]
    optional: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class Entry:
    at: int
    key: Any
    """a Node in a map, a name in an object"""
    value: Node
    optional: bool


@dataclass(slots=True, eq=False)
class Map(Node):
    entries: list[Entry]


@dataclass(slots=True, eq=False)
class Struct(Node):
    name: str
    entries: list[Entry]


@dataclass(slots=True, eq=False)
class Macro:
    """What a comprehension was written as."""

    name: str
    test: Node | None
    body: Node | None


@dataclass(slots=True, eq=False)
class Comprehension(Node):
    range: Node
    var: str
    var2: str
    accu: str
    init: Node
    condition: Node
    step: Node
    result: Node
    macro: Macro


class Fault(Exception):
    """A fault at a place of the expression."""

    def __init__(self, at: int, message: str) -> None:
        super().__init__(message)
        self.at = at
        self.message = message


def shown(text: str, faults: list[Fault]) -> str:
    """All faults in cel-go's words, in the order of their places."""
    return "\n".join(_one(text, f) for f in sorted(faults, key=lambda f: f.at)[:100])


def _one(text: str, fault: Fault) -> str:
    line = text.count("\n", 0, fault.at)
    start = text.rfind("\n", 0, fault.at) + 1
    source = text[start:].partition("\n")[0]
    column = fault.at - start
    if not text:
        return f"ERROR: <input>:1:0: {fault.message}"
    return f"ERROR: <input>:{line + 1}:{column + 1}: {fault.message}\n | {source}\n | {'.' * column}^"
