"""Label selectors: the text of a query (`app=web,tier in (a,b),!old`) and the object in a spec.

Source: k8s.io/apimachinery pkg/labels, pkg/apis/meta/v1 LabelSelector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from berg.machinery import names

_TOKEN = re.compile(r"\s*(==|!=|=|!|\(|\)|,|>|<|[^\s=!(),<>]+)\s*")
_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!", "Gt": "gt", "Lt": "lt"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """`operator`: in, notin, exists, !, gt, lt. `=` is `in` with one value."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

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
        if self.operator == "in" and len(values) == 1:
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
            found.append(Requirement(e["key"], operator, frozenset(e.get("values") or ())))
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
    tokens: list[str] = []
    position = 0
    stripped = text.strip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise ValueError(f"unable to parse requirement: found '{stripped[position]}'")
        tokens.append(match.group(1))
        position = match.end()
    return Selector(tuple(_Parser(tokens).requirements()))


class _Parser:
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
        while self._peek():
            found.append(self._requirement())
            separator = self._next()
            if separator == "":
                break
            if separator != ",":
                raise ValueError(f"found '{separator}', expected: ',' or 'end of string'")
            if not self._peek():
                raise ValueError("found '', expected: identifier after ','")
        return found

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            return Requirement(self._key(), "!")
        key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return Requirement(key, "exists")
        self._next()
        if operator in ("=", "=="):
            return Requirement(key, "in", frozenset((self._value(),)))
        if operator == "!=":
            return Requirement(key, "notin", frozenset((self._value(),)))
        if operator in (">", "<"):
            value = self._value()
            try:
                int(value)
            except ValueError:
                raise ValueError(
                    "values[0]: Invalid value: for 'Gt', 'Lt' operators, the value must be an integer"
                ) from None
            return Requirement(key, "gt" if operator == ">" else "lt", frozenset((value,)))
        if operator in ("in", "notin"):
            return Requirement(key, operator, frozenset(self._values()))
        raise ValueError(f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def _key(self) -> str:
        key = self._next()
        if not key or key in "=!(),<>" or key in ("==", "!="):
            raise ValueError(f"unable to parse requirement: found '{key}', expected: identifier")
        if faults := names.qualified_name(key):
            raise ValueError(f'unable to parse requirement: <nil>: Invalid value: "{key}": {"; ".join(faults)}')
        return key

    def _value(self) -> str:
        if self._peek() in ("", ","):
            return ""
        value = self._next()
        if faults := names.label_value(value):
            raise ValueError(f'unable to parse requirement: values[0][]: Invalid value: "{value}": {"; ".join(faults)}')
        return value

    def _values(self) -> list[str]:
        if (opening := self._next()) != "(":
            raise ValueError(f"unable to parse requirement: found '{opening}' expected: '('")
        values: list[str] = []
        while True:
            values.append("" if self._peek() in (",", ")") else self._value())
            match self._next():
                case ",":
                    continue
                case ")":
                    return values
                case other:
                    raise ValueError(f"unable to parse requirement: found '{other}', expected: ',' or ')'")
