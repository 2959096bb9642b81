"""Types of every node of an expression, and what is wrong with it.

Names are looked up in the environment, calls in the table of functions; what cannot be known (`dyn`) fits everywhere.
All faults are gathered, so that a message names them all.

Source: cel-go checker/checker.go, and its messages.
"""

from __future__ import annotations

from collections.abc import Mapping

from berg.machinery.cel import types
from berg.machinery.cel.declarations import functions, type_names
from berg.machinery.cel.names import RESERVED, escape_name
from berg.machinery.cel.syntax import (
    Call,
    Comprehension,
    Fault,
    Ident,
    List,
    Literal,
    Map,
    Node,
    Select,
    Struct,
)
from berg.machinery.cel.types import BOOL, DYN, ERROR, INT, Bindings, Overload, Type
from berg.machinery.cel.values import UInt

_LITERALS = {
    bool: types.BOOL,
    int: types.INT,
    UInt: types.UINT,
    float: types.DOUBLE,
    str: types.STRING,
    bytes: types.BYTES,
    type(None): types.NULL,
}


def check(
    node: Node, variables: Mapping[str, Type], structs: Mapping[str, Type], without: frozenset[str]
) -> list[Fault]:
    """Fills in types and overloads; gives the faults. `structs`: types that may be initialized, by name; `without`:
    functions that are not there."""
    checker = _Checker(variables, structs, without)
    checker.check(node)
    if not checker.faults:
        checker.settle(node)
    return checker.faults


class _Checker:
    def __init__(self, variables: Mapping[str, Type], structs: Mapping[str, Type], without: frozenset[str]) -> None:
        self.scopes: list[Mapping[str, Type]] = [type_names(), variables]
        self.structs = structs
        self.without = without
        self.bindings = Bindings()
        self.faults: list[Fault] = []
        self.nodes: list[Node] = []

    def fault(self, at: int, message: str) -> None:
        self.faults.append(Fault(at, message))

    def settle(self, node: Node) -> None:
        for each in self.nodes:
            each.type = self.bindings.known(each.type, free_is_dyn=True)

    def check(self, node: Node) -> Type:
        match node:
            case Literal():
                found = _LITERALS[type(node.value)]
            case Ident():
                found = self._ident(node)
            case Select():
                found = self._select(node)
            case Call():
                found = self._call(node)
            case List():
                found = self._list(node)
            case Map():
                found = self._map(node)
            case Struct():
                found = self._struct(node)
            case Comprehension():
                found = self._comprehension(node)
            case _:
                raise AssertionError(node)
        node.type = found
        self.nodes.append(node)
        return found

    # ---- names

    def _lookup(self, name: str) -> Type | None:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return None

    def _undeclared(self, at: int, name: str) -> Type:
        self.fault(at, f"undeclared reference to '{name}' (in container '')")
        return ERROR

    def _ident(self, node: Ident) -> Type:
        return self._lookup(node.name) or self._undeclared(node.at, node.name)

    def _select(self, node: Select) -> Type:
        name = _qualified(node)
        if name is not None and (found := self._lookup(name)) is not None:
            node.qualified = name
            return found
        found = self._field(node.at, node.operand, node.name, optional=False)
        return BOOL if node.test else self.bindings.known(found)

    def _field(self, at: int, operand: Node, name: str, *, optional: bool) -> Type:
        of = self.bindings.known(self.check(operand))
        inner = of.params[0] if types.is_optional(of) else of
        if inner.kind == "map":
            found = inner.params[1]
        elif inner.kind == "struct":
            fields = inner.fields if inner.fields is not None else {}
            real = name if name in fields or name not in RESERVED else escape_name(name)
            if real in fields:
                found = fields[real]
            else:
                self.fault(at, f"undefined field '{name}'")
                found = ERROR
        elif inner.kind == "param":
            self.bindings.fit([DYN], [inner])
            found = DYN
        else:
            if inner.kind not in ("dyn", "error"):
                self.fault(at, f"type '{inner}' does not support field selection")
            found = DYN
        return types.optional_of(found) if optional or inner is not of else found

    # ---- calls

    def _call(self, node: Call) -> Type:
        if node.function == "_?._":
            field = node.args[1]
            assert isinstance(field, Literal)
            found = self._field(node.at, node.args[0], field.value, optional=True)
            self.check(field)
            return self.bindings.known(found)
        for arg in node.args:
            self.check(arg)
        if node.target is None:
            return self._resolve(node, node.function)
        prefix = _qualified(node.target)
        if prefix is not None and self._declared(f"{prefix}.{node.function}"):
            node.function, node.target = f"{prefix}.{node.function}", None
            return self._resolve(node, node.function)
        self.check(node.target)
        return self._resolve(node, node.function)

    def _declared(self, name: str) -> tuple[Overload, ...]:
        return () if name in self.without else functions().get(name, ())

    def _resolve(self, node: Call, name: str) -> Type:
        overloads = self._declared(name)
        if not overloads:
            return self._undeclared(node.at, name)
        args = [node.target, *node.args] if node.target is not None else node.args
        given = [a.type for a in args]
        if name in ("_&&_", "_||_"):
            node.overloads = overloads
            return self._logical(args)
        result: Type | None = None
        fitting = []
        for overload in overloads:
            if overload.member != (node.target is not None):
                continue
            wanted, made = self.bindings.instance(overload)
            if not self.bindings.fit(given, wanted):
                continue
            fitting.append(overload)
            made = self.bindings.known(made)
            if result is None:
                result = made
            elif result is not DYN and made != result:
                result = DYN
        if result is None:
            self._mismatch(node, name, given)
            return ERROR
        node.overloads = tuple(fitting)
        return result

    def _logical(self, args: list[Node]) -> Type:
        result = BOOL
        for arg in args:
            if not self.bindings.fit([arg.type], [BOOL]):
                self.fault(arg.at, f"expected type 'bool' but found '{self.bindings.known(arg.type)}'")
                result = ERROR
        return result

    def _mismatch(self, node: Call, name: str, given: list[Type]) -> None:
        shown = [str(self.bindings.known(t, free_is_dyn=True)) for t in given]
        receiver = f"{shown.pop(0)}." if node.target is not None else ""
        self.fault(node.at, f"found no matching overload for '{name}' applied to '{receiver}({', '.join(shown)})'")

    # ---- aggregates

    def _join(self, before: Type | None, now: Type) -> Type:
        if before is None:
            return now
        if self.bindings.fit([before], [now]):
            return types.general(before, now)
        return DYN

    def _expected(self, at: int, wanted: Type, found: Type) -> None:
        known = self.bindings.known
        self.fault(at, f"expected type '{known(wanted)}' but found '{known(found)}'")

    def _unwrapped(self, node: Node, found: Type) -> Type:
        if types.is_optional(found):
            return found.params[0]
        if found.kind != "dyn":
            self._expected(node.at, types.optional_of(found), found)
        return found

    def _list(self, node: List) -> Type:
        element: Type | None = None
        for i, inner in enumerate(node.elements):
            found = self.check(inner)
            if i in node.optional:
                found = self._unwrapped(inner, found)
            element = self._join(element, found)
        return types.list_of(element or self.bindings.fresh())

    def _map(self, node: Map) -> Type:
        key: Type | None = None
        value: Type | None = None
        for entry in node.entries:
            key = self._join(key, self.check(entry.key))
            found = self.check(entry.value)
            if entry.optional:
                found = self._unwrapped(entry.value, found)
            value = self._join(value, found)
        return types.map_of(key or self.bindings.fresh(), value or self.bindings.fresh())

    def _struct(self, node: Struct) -> Type:
        made = self.structs.get(node.name)
        if made is None:
            named = self._lookup(node.name)
            if named is None:
                return self._undeclared(node.at, node.name)
            self.fault(node.at, f"'{named}' is not a {'message type' if named.kind == 'type' else 'type'}")
            return ERROR
        fields = made.fields if made.fields is not None else {}
        for entry in node.entries:
            found = self.check(entry.value)
            wanted = fields.get(entry.key)
            if wanted is None:
                self.fault(entry.at, f"undefined field '{entry.key}'")
                continue
            if entry.optional:
                found = self._unwrapped(entry.value, found)
            if not self.bindings.fit([wanted], [found]):
                why = f"expected type of field '{entry.key}' is '{wanted}' but provided type is '{found}'"
                self.fault(entry.at, why)
        return made

    def _comprehension(self, node: Comprehension) -> Type:
        over = self.bindings.known(self.check(node.range))
        accu = self.check(node.init)
        first, second = self._iterated(node, over)
        self.scopes.append({node.accu: accu})
        self.scopes.append({node.var: first, **({node.var2: second} if node.var2 else {})})
        if not self.bindings.fit([BOOL], [self.check(node.condition)]):
            self._expected(node.condition.at, BOOL, node.condition.type)
        if not self.bindings.fit([accu], [self.check(node.step)]):
            self._expected(node.step.at, accu, node.step.type)
        self.scopes.pop()
        result = self.check(node.result)
        self.scopes.pop()
        return self.bindings.known(result)

    def _iterated(self, node: Comprehension, over: Type) -> tuple[Type, Type]:
        match over.kind:
            case "list":
                return (INT, over.params[0]) if node.var2 else (over.params[0], ERROR)
            case "map":
                return over.params[0], over.params[1]
            case "dyn" | "error" | "param":
                self.bindings.fit([DYN], [over])
                return DYN, DYN
        why = f"expression of type '{over}' cannot be range of a comprehension (must be list, map, or dynamic)"
        self.fault(node.range.at, why)
        return ERROR, ERROR


def _qualified(node: Node) -> str | None:
    """`a.b.c`, where it is nothing but names."""
    if isinstance(node, Ident):
        return node.name
    if isinstance(node, Select) and not node.test:
        prefix = _qualified(node.operand)
        return f"{prefix}.{node.name}" if prefix is not None else None
    return None
