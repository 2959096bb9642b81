"""`additionalPrinterColumns`: cells by JSONPath.

Source: k8s.io/apiextensions-apiserver pkg/registry/customresource/tableconvertor.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column
from berg.machinery.clock import parse_rfc3339, rfc3339
from berg.machinery.status import Obj

_STEP = re.compile(r"\.\.?([\w\-\\./]*?[\w\-])(?=[.\[]|$)|\[(\d+|\*|-\d+)\]|\['([^']+)'\]|\[\?\(@\.?([^)]*)\)\]|\.(\*)")
_FILTER = re.compile(r"([\w.\-]+)\s*(==|!=)\s*(?:\"([^\"]*)\"|'([^']*)'|(\S+))")

Walk = Callable[[list[Any]], list[Any]]


class BadPath(ValueError):
    pass


def compile_path(path: str) -> Callable[[Obj], list[Any]]:
    """All values at a JSONPath of the simple kind that columns and selectable fields use. Raises BadPath."""
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[Walk] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if match is None:
            raise BadPath(f"unrecognized character in path: {text[position:]}")
        name, index, quoted, condition, star = match.groups()
        if condition is not None:
            steps.append(_filter(condition))
        elif index == "*" or star:
            steps.append(_children)
        elif index is not None:
            steps.append(_index(int(index)))
        else:
            steps.append(_key((quoted or name).replace("\\.", ".")))
        position = match.end()

    def find(obj: Obj) -> list[Any]:
        found: list[Any] = [obj]
        for step in steps:
            found = step(found)
        return found

    return find


def _key(name: str) -> Walk:
    return lambda values: [v[name] for v in values if isinstance(v, dict) and name in v]


def _index(number: int) -> Walk:
    return lambda values: [v[number] for v in values if isinstance(v, list) and -len(v) <= number < len(v)]


def _children(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return found


def _filter(condition: str) -> Walk:
    match = _FILTER.fullmatch(condition.strip())
    if match is None:
        raise BadPath(f"unsupported filter: {condition}")
    left, operator, double, single, bare = match.groups()
    wanted: Any = double if double is not None else single
    if wanted is None:
        try:
            wanted = orjson.loads(bare)
        except ValueError:
            wanted = bare
    names = left.split(".")

    def walk(values: list[Any]) -> list[Any]:
        found = []
        for value in values:
            for inner in value if isinstance(value, list) else ():
                at: Any = inner
                for name in names:
                    at = at.get(name) if isinstance(at, dict) else None
                if (at == wanted) == (operator == "=="):
                    found.append(inner)
        return found

    return walk


def columns_of(version: Obj) -> tuple[Column, ...]:
    """Name, then the columns of the version, or Age when it has none."""
    listed = version.get("additionalPrinterColumns")
    if not listed:
        return (cells.NAME, Column("Age", _created, type="date", description=_AGE_TEXT))
    found = [cells.NAME]
    for column in listed:
        try:
            path = compile_path(column["jsonPath"])
        except BadPath:
            continue
        found.append(
            Column(
                column["name"],
                _cell(path, column.get("type", "string")),
                column.get("type", "string"),
                column.get("format", ""),
                column.get("description")
                or f"Custom resource definition column (in JSONPath format): {column['jsonPath']}",
                column.get("priority", 0),
            )
        )
    return tuple(found)


_AGE_TEXT = "Time since the object was created."


def _created(obj: Obj) -> Any:
    return cells.since((obj.get("metadata") or {}).get("creationTimestamp"))


def _cell(path: Callable[[Obj], list[Any]], type_: str) -> Callable[[Obj], Any]:
    def value(obj: Obj) -> Any:
        found = path(obj)
        if not found or found[0] is None:
            return "<no value>" if found and type_ == "string" else None
        return _convert(found[0], type_)

    return value


def _convert(first: Any, type_: str) -> Any:
    """Of several values the first is shown."""
    match type_:
        case "integer":
            return int(first) if isinstance(first, (int, float)) and not isinstance(first, bool) else None
        case "number":
            return first if isinstance(first, (int, float)) and not isinstance(first, bool) else None
        case "boolean":
            return first if isinstance(first, bool) else None
        case "date":
            return _since(first) if isinstance(first, str) else None
    return _text(first)


def _since(text: str) -> str:
    if text == "null":
        return "<unknown>"
    try:
        return cells.since(rfc3339(parse_rfc3339(text)))
    except ValueError:
        return "<invalid>"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return orjson.dumps(value).decode() if isinstance(value, (dict, list)) else str(value)
