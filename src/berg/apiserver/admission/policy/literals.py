"""Object initializers in the expressions of mutating policies, which the CEL library does not know: they become maps.

Object{spec: Object.spec{replicas: 3}}           →  {"spec": {"replicas": 3}}
JSONPatch{op: "add", path: "/a", value: [1]}     →  {"op": "add", "path": "/a", "value": [1]}
Object{?spec: optional.none()}                   →  {"?spec": optional.none()}, dropped or unwrapped by `settled`
jsonpatch.escapeKey(k)                           →  k.replace("~", "~0").replace("/", "~1")
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_TYPE = re.compile(r"\b(?:JSONPatch|Object(?:\.[A-Za-z_]\w*)*)\s*\{")
_KEY = re.compile(r"(\s*)(\??)\s*(`[^`]*`|[A-Za-z_]\w*)\s*:")
_ESCAPE = "jsonpatch.escapeKey("


@lru_cache(maxsize=1024)
def as_maps(text: str) -> str:
    """The expression in words that the library knows."""
    out: list[str] = []
    i = 0
    braces: list[bool] = []  # for each open bracket: is it an initializer, whose keys are names?
    at_key = False
    while i < len(text):
        c = text[i]
        if at_key and (match := _KEY.match(text, i)):
            out.append(f'{match[1]}"{match[2]}{_unescaped(match[3])}":')
            i = match.end()
            at_key = False
            continue
        at_key = at_key and c.isspace()
        if c in "\"'":
            end = _string_end(text, i)
            out.append(text[i:end])
            i = end
            continue
        if (
            (c in "OJ")
            and (match := _TYPE.match(text, i))
            and not (i and (text[i - 1].isalnum() or text[i - 1] in "_."))
        ):
            out.append("{")
            braces.append(True)
            at_key = True
            i = match.end()
            continue
        if text.startswith(_ESCAPE, i):
            end = _closing(text, i + len(_ESCAPE))
            inner = as_maps(text[i + len(_ESCAPE) : end])
            out.append(f'({inner}).replace("~", "~0").replace("/", "~1")')
            i = end + 1
            continue
        if c in "{[(":
            braces.append(False)
        elif c in "}])" and braces:
            braces.pop()
        elif c == "," and braces and braces[-1]:
            at_key = True
        out.append(c)
        i += 1
    return "".join(out)


def _unescaped(name: str) -> str:
    name = name.strip("`")
    if name.startswith("__") and name.endswith("__"):
        return name[2:-2]
    for shown, raw in (("__dot__", "."), ("__dash__", "-"), ("__slash__", "/"), ("__underscores__", "__")):
        name = name.replace(shown, raw)
    return name


def _string_end(text: str, start: int) -> int:
    quote = text[start]
    i = start + 1
    while i < len(text) and text[i] != quote:
        i += 2 if text[i] == "\\" else 1
    return min(i + 1, len(text))


def _closing(text: str, start: int) -> int:
    depth, i = 1, start
    while i < len(text):
        if text[i] in "\"'":
            i = _string_end(text, i)
            continue
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
        i += 1
    return len(text)


def settled(value: Any) -> Any:
    """A plain value: optional fields are there or not, what the library gives is Python's own."""
    if isinstance(value, dict):
        out = {}
        for key, v in value.items():
            key = str(key)
            if key.startswith("?"):
                if hasattr(v, "has_value"):
                    if not v.has_value():
                        continue
                    v = v.value()
                key = key[1:]
            out[key] = settled(v)
        return out
    if isinstance(value, list | tuple):
        return [settled(v) for v in value]
    return value
