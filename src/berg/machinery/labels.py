"""Label selectors: the text of a query (`app=web,tier in (a,b),!old`) and the object in a spec.

Source: k8s.io/apimachinery pkg/labels, pkg/apis/meta/v1 LabelSelector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from berg.machinery import names
from berg.machinery.quoting import quote

_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!", "Gt": "gt", "Lt": "lt"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """`operator`: in, notin, exists, !, gt, lt. `=` is `in` with one value."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()
    listed: bool = field(default=False, compare=False)
    """written `key in (value)` also with one value"""

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case _:
                if value is None:
                    return False
                try:
                    have, want = int(value), int(next(iter(self.values)))
                except ValueError:
                    return False
                return have > want if self.operator == "gt" else have < want

    def __str__(self) -> str:
        if self.operator == "exists":
            return self.key
        if self.operator == "!":
            return f"!{self.key}"
        if self.operator in ("gt", "lt"):
            return f"{self.key}{'>' if self.operator == 'gt' else '<'}{next(iter(self.values))}"
        values = sorted(self.values)
        if self.operator == "in" and len(values) == 1 and not self.listed:
            return f"{self.key}={values[0]}"
        return f"{self.key} {self.operator} ({','.join(values)})"


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; none: everything matches. `nothing` matches no object."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        return not self.nothing and all(r.matches(labels) for r in self.requirements)

    @property
    def everything(self) -> bool:
        return not self.nothing and not self.requirements

    def exact(self) -> tuple[str, str] | None:
        """A (key, value) that every match has: what an index can be asked for."""
        for r in self.requirements:
            if r.operator == "in" and len(r.values) == 1:
                return r.key, next(iter(r.values))
        return None

    def __str__(self) -> str:
        return ",".join(str(r) for r in sorted(self.requirements, key=lambda r: r.key))

    @staticmethod
    def parse(text: str) -> Selector:
        """Raises ValueError with a message for the client."""
        return _parse(text)

    @staticmethod
    def of(selector: Mapping[str, Any] | None) -> Selector:
        """From a LabelSelector object: None matches nothing, `{}` everything. Raises ValueError."""
        if selector is None:
            return NOTHING
        found = [Requirement(k, "in", frozenset((v,))) for k, v in (selector.get("matchLabels") or {}).items()]
        for e in selector.get("matchExpressions") or ():
            operator = _OPERATORS.get(e.get("operator", ""))
            if operator is None or operator in ("gt", "lt"):
                raise ValueError(f'"{e.get("operator", "")}" is not a valid label selector operator')
            found.append(Requirement(e["key"], operator, frozenset(e.get("values") or ()), listed=True))
        return Selector(tuple(found))

    @staticmethod
    def of_map(labels: Mapping[str, str] | None) -> Selector:
        """From a plain map (Service, ReplicationController). None or empty: everything."""
        return Selector(tuple(Requirement(k, "in", frozenset((v,))) for k, v in (labels or {}).items()))

    @staticmethod
    def of_node_expressions(expressions: list[Mapping[str, Any]]) -> Selector:
        """From a NodeSelectorTerm's matchExpressions, which also know Gt and Lt."""
        return Selector(
            tuple(
                Requirement(e["key"], _OPERATORS[e["operator"]], frozenset(e.get("values") or ())) for e in expressions
            )
        )


NOTHING = Selector(nothing=True)
EVERYTHING = Selector()


@lru_cache(maxsize=1024)
def _parse(text: str) -> Selector:
    return Selector(tuple(_Parser(_tokens(text)).requirements()))


_SPACE, _SYMBOLS = " \t\r\n", "=!(),<>"
_WORDS = ("in", "notin")
_OPERATIONS = {"=": "in", "==": "in", "!=": "notin", ">": "gt", "<": "lt", "in": "in", "notin": "notin"}


def _tokens(text: str) -> list[str]:
    """Symbols as long as they may be, identifiers up to the next symbol, space or NUL."""
    found: list[str] = []
    at = 0
    while at < len(text):
        c = text[at]
        if c in _SPACE:
            at += 1
        elif c in _SYMBOLS:
            length = 2 if text[at : at + 2] in ("==", "!=") else 1
            found.append(text[at : at + length])
            at += length
        elif c == "\0":
            at += 1
        else:
            end = at
            while end < len(text) and text[end] not in _SPACE and text[end] not in _SYMBOLS and text[end] != "\0":
                end += 1
            found.append(text[at:end])
            at = end
    return found


class _Parser:
    """Upstream's grammar, its words included. "" is the end."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while token := self._peek():
            if not _is_word(token) and token != "!":
                raise ValueError(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self._requirement())
            except ValueError as e:
                raise ValueError(f"unable to parse requirement: {e}") from None
            separator = self._next()
            if separator == "":
                break
            if separator != ",":
                raise ValueError(f"found '{separator}', expected: ',' or 'end of string'")
            following = self._peek()
            if not _is_word(following) and following != "!":
                raise ValueError(f"found '{following}', expected: identifier after ','")
        return found

    def _requirement(self) -> Requirement:
        absent = self._peek() == "!"
        if absent:
            self._next()
        key = self._next()
        if not _is_word(key):
            raise ValueError(f"found '{key}', expected: identifier")
        if faults := names.qualified_name(key):
            told = "; ".join(faults).replace("a qualified name must", "a valid label key must")
            raise ValueError(f"<nil>: Invalid value: {quote(key)}: {told}")
        if absent:
            return Requirement(key, "!")
        if self._peek() in ("", ","):
            return Requirement(key, "exists")
        operator = self._next()
        operation = _OPERATIONS.get(operator)
        if operation is None:
            raise ValueError(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
        values = self._values() if operator in _WORDS else [self._value()]
        if operation in ("gt", "lt"):
            _whole(values[0])
        for position, value in enumerate(values):
            if faults := names.label_value(value):
                raise ValueError(f"values[{position}][{key}]: Invalid value: {quote(value)}: {'; '.join(faults)}")
        return Requirement(key, operation, frozenset(values))

    def _value(self) -> str:
        if self._peek() in ("", ","):
            return ""
        value = self._next()
        if not _is_word(value):
            raise ValueError(f"found '{value}', expected: identifier")
        return value

    def _values(self) -> list[str]:
        if (opening := self._next()) != "(":
            raise ValueError(f"found '{opening}' expected: '('")
        first = self._peek()
        if first == ")":
            self._next()
            return [""]
        if first != "," and not _is_word(first):
            raise ValueError(f"found '{first}', expected: ',', ')' or identifier")
        values: list[str] = []
        while True:
            values.append(self._next() if _is_word(self._peek()) else "")
            match self._next():
                case ",":
                    continue
                case ")":
                    return sorted(set(values))
                case other:
                    raise ValueError(f"found '{other}', expected: ',' or ')'")


def _is_word(token: str) -> bool:
    return token != "" and token[0] not in _SYMBOLS


def _whole(value: str) -> None:
    if not _INTEGER.fullmatch(value) or not -(1 << 63) <= int(value) < 1 << 63:
        why = "for 'Gt', 'Lt' operators, the value must be an integer"
        raise ValueError(f'values[0]: Invalid value: "{value}": {why}')


_INTEGER = re.compile(r"[+-]?[0-9]+")
