"""Fields that a rule names and its schema does not have: found when a definition is written, not when it is asked.

Looked at are the chains that begin at `self` and `oldSelf`; where a chain comes to a call, or to a value of which
the schema does not say what it is, it ends.

Source: k8s.io/apiserver pkg/cel/common/schemas.go (what a schema declares), cel-go's messages.
"""

from __future__ import annotations

import re

from berg.apiserver.cel.environment import escape_name
from berg.machinery.status import Obj

_TOKEN = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|([A-Za-z_][A-Za-z0-9_]*)|(\.\??)|(\S)""", re.DOTALL)
_ROOT = {
    "apiVersion": {"type": "string"},
    "kind": {"type": "string"},
    "metadata": {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}},
}

Token = tuple[int, str]


def undefined(text: str, schema: Obj, *, root: bool = False, optional_old: bool = False) -> list[str]:
    """cel-go's messages, one for each name that is not there."""
    tokens = [(m.start(), m.group()) for m in _TOKEN.finditer(text)]
    if root:
        schema = {**schema, "properties": {**(schema.get("properties") or {}), **_ROOT}}
    found = []
    for i, (_, word) in enumerate(tokens):
        begins = i == 0 or not tokens[i - 1][1].startswith(".")
        if begins and (word == "self" or (word == "oldSelf" and not optional_old)):
            fault = _follow(tokens, i + 1, schema)
            if fault is not None:
                at, name = fault
                found.append(_message(text, at, f"undefined field '{name}'"))
    return found


def _follow(tokens: list[Token], i: int, schema: Obj | None) -> Token | None:
    while schema is not None and i < len(tokens):
        at, word = tokens[i]
        if word == "[":
            i = _after(tokens, i)
            schema = _element(schema)
        elif word in (".", ".?") and i + 1 < len(tokens):
            name = tokens[i + 1][1]
            if i + 2 < len(tokens) and tokens[i + 2][1] == "(":
                return None
            properties = {escape_name(n): s for n, s in (schema.get("properties") or {}).items()}
            if schema.get("x-kubernetes-embedded-resource"):
                properties = {**properties, **_ROOT}
            if name not in properties:
                return (at, name) if _is_closed(schema) else None
            schema = properties[name]
            i += 2
        else:
            return None
    return None


def _is_closed(schema: Obj) -> bool:
    """Whether there is nothing in it but its properties."""
    return (
        schema.get("type") == "object"
        and not schema.get("x-kubernetes-preserve-unknown-fields")
        and not schema.get("additionalProperties")
    )


def _element(schema: Obj) -> Obj | None:
    inner = schema.get("items") if schema.get("type") == "array" else schema.get("additionalProperties")
    return inner if isinstance(inner, dict) else None


def _after(tokens: list[Token], i: int) -> int:
    """The token behind the bracket that opens at `i`."""
    depth = 0
    for j in range(i, len(tokens)):
        depth += (tokens[j][1] == "[") - (tokens[j][1] == "]")
        if depth == 0:
            return j + 1
    return len(tokens)


def _message(text: str, at: int, why: str) -> str:
    line = text.count("\n", 0, at)
    start = text.rfind("\n", 0, at) + 1
    shown = text[start:].partition("\n")[0]
    return f"ERROR: <input>:{line + 1}:{at - start + 1}: {why}\n | {shown}\n | {'.' * (at - start)}^"
