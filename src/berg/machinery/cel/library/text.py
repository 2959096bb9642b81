"""Strings and regular expressions.

Regular expressions are RE2's, as in Go: their time is linear in the text, whatever the pattern.

Source: cel-go ext/{strings,formatting}.go; k8s.io/apiserver pkg/cel/library/regex.go.
"""

from __future__ import annotations

import math
import re
from typing import Any

from berg.machinery import regexp
from berg.machinery.cel.library import kind, on
from berg.machinery.cel.library.conversions import text_of_real
from berg.machinery.cel.library.times import written, written_duration
from berg.machinery.cel.types import Type
from berg.machinery.cel.values import EvaluationError, Named

on("startsWith", "string", "string")(lambda a, b: a.startswith(b))
on("endsWith", "string", "string")(lambda a, b: a.endswith(b))
on("contains", "string", "string")(lambda a, b: b in a)


# ---- regular expressions


def _pattern(text: str) -> Any:
    try:
        return regexp.compile(text)
    except ValueError as e:
        raise EvaluationError(str(e)) from None


@on("matches", "string", "string")
def matches(text: str, expression: str) -> bool:
    return _pattern(expression).search(text) is not None


@on("find", "string", "string")
def find(text: str, expression: str) -> str:
    found = _pattern(expression).search(text)
    return str(found.group(0)) if found is not None else ""


@on("findAll", "string", "string")
def find_all(text: str, expression: str) -> list[str]:
    return find_some(text, expression, -1)


@on("findAll", "string", "string", "int")
def find_some(text: str, expression: str, limit: int) -> list[str]:
    found = [str(m.group(0)) for m in _pattern(expression).finditer(text)]
    return found if limit < 0 else found[:limit]


# ---- parts


@on("charAt", "string", "int")
def char_at(text: str, index: int) -> str:
    if not 0 <= index <= len(text):
        raise EvaluationError(f"index out of range: {index}")
    return text[index : index + 1]


@on("indexOf", "string", "string")
def index_of(text: str, wanted: str) -> int:
    return text.find(wanted)


@on("indexOf", "string", "string", "int")
def index_from(text: str, wanted: str, start: int) -> int:
    if not wanted:
        return start
    if not 0 <= start < max(len(text), 1):
        raise EvaluationError(f"index out of range: {start}")
    return text.find(wanted, start)


@on("lastIndexOf", "string", "string")
def last_index_of(text: str, wanted: str) -> int:
    return text.rfind(wanted)


@on("lastIndexOf", "string", "string", "int")
def last_index_from(text: str, wanted: str, end: int) -> int:
    if not wanted:
        return end
    if not 0 <= end < max(len(text), 1):
        raise EvaluationError(f"index out of range: {end}")
    return text.rfind(wanted, 0, end + len(wanted))


@on("substring", "string", "int")
def tail(text: str, start: int) -> str:
    if not 0 <= start <= len(text):
        raise EvaluationError(f"index out of range: {start}")
    return text[start:]


@on("substring", "string", "int", "int")
def part(text: str, start: int, end: int) -> str:
    if start > end:
        raise EvaluationError(f"invalid substring range. start: {start}, end: {end}")
    for index in (start, end):
        if not 0 <= index <= len(text):
            raise EvaluationError(f"index out of range: {index}")
    return text[start:end]


# ---- changing

_LOWER = {c: c + 32 for c in range(ord("A"), ord("Z") + 1)}
_UPPER = {c: c - 32 for c in range(ord("a"), ord("z") + 1)}
on("lowerAscii", "string")(lambda text: text.translate(_LOWER))
on("upperAscii", "string")(lambda text: text.translate(_UPPER))
on("trim", "string")(lambda text: text.strip())


@on("replace", "string", "string", "string")
def replace(text: str, old: str, new: str) -> str:
    return text.replace(old, new)


@on("replace", "string", "string", "string", "int")
def replace_some(text: str, old: str, new: str, limit: int) -> str:
    return text.replace(old, new, limit if limit >= 0 else -1)


@on("split", "string", "string")
def split(text: str, by: str) -> list[str]:
    return text.split(by) if by else list(text)


@on("split", "string", "string", "int")
def split_some(text: str, by: str, limit: int) -> list[str]:
    if limit == 0:
        return []
    if limit < 0:
        return split(text, by)
    if by:
        return text.split(by, limit - 1)
    return list(text) if limit >= len(text) else [*text[: limit - 1], text[limit - 1 :]]


@on("join", "list")
def join(values: list[Any]) -> str:
    return join_by(values, "")


@on("join", "list", "string")
def join_by(values: list[Any], between: str) -> str:
    if not all(isinstance(v, str) for v in values):
        raise EvaluationError("join: invalid input")
    return between.join(values)


@on("strings.quote", "string")
def quote(text: str) -> str:
    marks = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
    marks |= {"\\": r"\\", '"': r"\""}
    return '"' + "".join(marks.get(c, c) for c in text) + '"'


@on("jsonpatch.escapeKey", "string")
def escape_key(text: str) -> str:
    return text.replace("~", "~0").replace("/", "~1")


# ---- format

_VERB = re.compile(r"%(?:(%)|(?:\.(\d+))?(.)|$)", re.S)


@on("format", "string", "list")
def formatted(text: str, values: list[Any]) -> str:
    used = 0

    def one(match: re.Match[str]) -> str:
        nonlocal used
        if match[1]:
            return "%"
        if match[3] is None:
            raise EvaluationError("unexpected end of string")
        if used >= len(values):
            raise EvaluationError(f"index {used} out of range")
        value = values[used]
        used += 1
        return _clause(match[3], int(match[2]) if match[2] else 6, value)

    return _VERB.sub(one, text)


def _clause(verb: str, precision: int, value: Any) -> str:
    match verb, kind(value):
        case "s", _:
            return shown(value)
        case "d", "int" | "uint":
            return str(int(value))
        case "d", "double" if math.isnan(value) or math.isinf(value):
            return shown(value)
        case "f", "double" | "int" | "uint":
            return f"{float(value):.{precision}f}" if math.isfinite(value) else shown(float(value))
        case "e", "double" | "int" | "uint":
            return _scientific(float(value), precision) if math.isfinite(value) else shown(float(value))
        case "b", "int" | "uint" | "bool":
            return f"{int(value):b}"
        case "o", "int" | "uint":
            return f"{int(value):o}"
        case "x" | "X", "int" | "uint":
            return f"{int(value):{verb}}"
        case "x" | "X", "string" | "bytes":
            octets = value.encode() if isinstance(value, str) else value
            return str(octets.hex() if verb == "x" else octets.hex().upper())
    if verb not in "sdfeboxX":
        raise EvaluationError(f'could not parse formatting clause: unrecognized formatting clause "{verb}"')
    raise EvaluationError(f"error during formatting: {_WANTED[verb]}, was given {kind(value)}")


_RAISED = str.maketrans("0123456789+-", "⁰¹²³⁴⁵⁶⁷⁸⁹\0⁻")


def _scientific(value: float, precision: int) -> str:
    mantissa, _, exponent = f"{value:.{precision}e}".partition("e")
    return f"{mantissa}×10{exponent.translate(_RAISED)}".replace("\0", "")


_WANTED = {
    "d": "decimal clause can only be used on integers",
    "f": "fixed-point clause can only be used on doubles",
    "e": "scientific clause can only be used on doubles",
    "b": "only integers and bools can be formatted as binary",
    "o": "octal clause can only be used on integers",
    "x": "only integers, byte buffers, and strings can be formatted as hex",
    "X": "only integers, byte buffers, and strings can be formatted as hex",
}


def shown(value: Any) -> str:
    match kind(value):
        case "bool":
            return "true" if value else "false"
        case "null_type":
            return "null"
        case "double":
            if math.isinf(value):
                return "Infinity" if value > 0 else "-Infinity"
            return text_of_real(value)
        case "bytes":
            return str(value.decode("utf-8", "replace"))
        case "list":
            return f"[{', '.join(map(shown, value))}]"
        case "map":
            entries = sorted((shown(k), shown(v)) for k, v in value.items())
            return "{" + ", ".join(f"{k}: {v}" for k, v in entries) + "}"
        case "google.protobuf.Timestamp":
            return written(value)
        case "google.protobuf.Duration":
            return written_duration(value)
    if isinstance(value, Type):
        return value.name
    return str(value.value) if isinstance(value, Named) else str(value)
