"""Paths to fields that a schema has: `.spec.list['a key']`, of rules and of selectable fields.

Source: k8s.io/apiextensions-apiserver pkg/apiserver/schema/cel/validation.go, ValidFieldPath.
"""

from __future__ import annotations

import re
from typing import Any

from berg.machinery.status import Obj

_TOKEN = re.compile(r"'(?:\\.|[^'\\])*'|[.\[\]]|[^.\[\]]+")


class BadPath(ValueError):
    """It leads nowhere."""


def is_valid(path: str, schema: Obj) -> bool:
    try:
        follow(path, schema)
    except BadPath:
        return False
    return True


def follow(path: str, schema: Obj, *, arrays: bool = True) -> tuple[list[str], Obj]:
    """The names on the way, and the schema there. `arrays`: `['…']` may be used. Raises BadPath."""
    tokens = _TOKEN.findall(path)
    steps: list[str] = []
    at = 0

    def take(i: int) -> str:
        if i >= len(tokens):
            raise BadPath("unexpected end of JSON path")
        return str(tokens[i])

    while at < len(tokens):
        token = tokens[at]
        if token == ".":
            name = take(at + 1)
            at += 2
        elif token == "[":
            if not arrays:
                raise BadPath("array notation is not allowed")
            name = take(at + 1)
            if len(name) < 2 or name[0] != "'" or name[-1] != "'":
                raise BadPath(f"expected single quoted string but got {name}")
            name = re.sub(r"\\(.)", r"\1", name[1:-1])
            if take(at + 2) != "]":
                raise BadPath(f"expected ] but got {tokens[at + 2]}")
            at += 3
        else:
            raise BadPath(f"expected [ or . but got: {token}")
        schema = _inner(schema, name)
        steps.append(name)
    return steps, schema


def _inner(schema: Obj, name: str) -> Obj:
    inner: Any = None
    if schema.get("properties") is not None:
        inner = schema["properties"].get(name)
    elif schema.get("additionalProperties") is not None:
        inner = schema["additionalProperties"]
    if not isinstance(inner, dict):
        raise BadPath("does not refer to a valid field")
    return inner
