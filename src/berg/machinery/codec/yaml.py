"""YAML in and out, with the meaning sigs.k8s.io/yaml gives it: YAML 1.1 scalars as go-yaml v2 resolves them,
then JSON. No timestamps (they stay text), no base 60 numbers, no Python tags.

Input is hostile until proven otherwise: nesting is bounded, and aliases may not multiply a document (go-yaml's
own rule). The events of libyaml are put together here without recursion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from berg.machinery.codec import json
from berg.machinery.quoting import quote

_NONE: Any = object()


class SyntaxFault(ValueError):
    """Not YAML, or not YAML that can be JSON; the message begins as go-yaml's do."""


def loads(data: bytes | str) -> Any:
    """The first document. Of equal keys the last wins."""
    found = _if_json(data)
    return _Composer(data).document() if found is _NONE else found


def loads_strict(data: bytes | str) -> tuple[Any, list[str]]:
    """The first document and, when keys stand twice, go-yaml's message about them."""
    found = _if_json(data, strict=True)
    if found is not _NONE:
        return found, []
    composer = _Composer(data)
    obj = composer.document()
    if not composer.twice:
        return obj, []
    lines = "".join(f"\n  line {line}: key {key} already set in map" for line, key in composer.twice)
    return obj, [f"yaml: unmarshal errors:{lines}"]


def _if_json(data: bytes | str, *, strict: bool = False) -> Any:
    """JSON is YAML, and what clients send as YAML is nearly always JSON: fifty times as fast. `_NONE` when it is
    not (or, when `strict`, when a key stands twice)."""
    raw = data.encode() if isinstance(data, str) else data
    if raw[:1] != b"{":
        return _NONE
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError as e:
            raise SyntaxFault(f"yaml: {_octet_fault(raw, e.start)}") from None
    try:
        found, twice = json.loads_strict(raw) if strict else (json.loads(raw), [])
    except json.SyntaxFault:
        return _NONE
    return _NONE if twice else _whole_numbers(found)


def _octet_fault(raw: bytes, at: int) -> str:
    """What libyaml says of bytes that are no UTF-8. Source: readerc.go."""
    first = raw[at]
    size = 2 if first & 0xE0 == 0xC0 else 3 if first & 0xF0 == 0xE0 else 4 if first & 0xF8 == 0xF0 else 0
    if not size:
        return "invalid leading UTF-8 octet"
    rest = raw[at + 1 : at + size]
    if any(b & 0xC0 != 0x80 for b in rest):
        return "invalid trailing UTF-8 octet"
    if len(rest) < size - 1:
        return "incomplete UTF-8 octet sequence"
    code = first & (0xFF >> (size + 1))
    for b in rest:
        code = code << 6 | b & 0x3F
    if code < (0x80, 0x800, 0x10000)[size - 2]:
        return "invalid length of a UTF-8 sequence"
    return "invalid Unicode character"


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, (dict, list, float)):
                value[key] = _whole_numbers(inner)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            if isinstance(inner, (dict, list, float)):
                value[i] = _whole_numbers(inner)
    elif isinstance(value, float):
        return _number(value)
    return value


def loads_all(data: bytes | str) -> Iterator[Any]:
    """Every document that is not empty."""
    composer = _Composer(data)
    while composer.more():
        obj = composer.document()
        if obj is not None:
            yield obj


def dumps(obj: Any) -> bytes:
    """Block style, keys in order of the alphabet, lists not indented: as sigs.k8s.io/yaml writes."""
    import yaml

    text: str = yaml.dump(
        obj, Dumper=_dumper(), default_flow_style=False, sort_keys=True, allow_unicode=True, width=2**31 - 1
    )
    return text.encode()


def dumps_all(objects: list[Any]) -> bytes:
    return b"---\n".join(dumps(o) for o in objects)


@cache
def _dumper() -> Any:
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        if len(value) < 40 and not isinstance(_plain(value), str):
            style = '"'  # would be read as something else; PyYAML itself does not know all of these
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return Dumper


# ---- scalars --------------------------------------------------------------------------------------------

_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INT = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TAG = "tag:yaml.org,2002:"


def _plain(text: str) -> Any:
    """What an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    if text[0] != "." and _INT.fullmatch(digits):
        whole = _integer(digits)
        if -(2**63) <= whole < 2**64:
            return whole
    if _FLOAT.fullmatch(text if text[0] == "." else digits):
        number = float(digits)
        return text if math.isinf(number) else number  # what no float holds is text
    return text


def _integer(text: str) -> int:
    sign, body = (-1, text[1:]) if text[0] == "-" else (1, text.lstrip("+"))
    head = body[:2].lower()
    if head in ("0x", "0b", "0o"):
        return sign * int(body[2:], {"0x": 16, "0b": 2, "0o": 8}[head])
    if len(body) > 1 and body[0] == "0":
        return sign * int(body, 8)
    return sign * int(body)


def _scalar(event: Any) -> Any:
    tag, text = event.tag, event.value
    if tag is None or tag == "!":
        return text if event.style or tag == "!" else _plain(text)
    short = tag.removeprefix(_TAG)
    if short == "str" or short == tag:
        return text
    if short == "binary":
        import base64

        try:
            return base64.b64decode(text).decode("utf-8", "replace")
        except ValueError:
            raise SyntaxFault("yaml: !!binary value contains invalid base64 data") from None
    value = _plain(text)
    if short == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = {"int": int, "bool": bool, "null": type(None), "float": float, "timestamp": str}.get(short)
    if wanted is None or type(value) is not wanted:
        raise SyntaxFault(f"yaml: cannot decode !!{_name(value)} `{text}` as a !!{short}")
    return value


def _name(value: Any) -> str:
    return {bool: "bool", int: "int", float: "float", type(None): "null"}.get(type(value), "str")


def _number(value: float) -> int | float:
    """JSON has no infinities; Go writes whole floats without a point."""
    if math.isnan(value) or math.isinf(value):
        shown = "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
        raise SyntaxFault(f"json: unsupported value: {shown}")
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _key(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        raise SyntaxFault("unsupported map key of type: %!s(<nil>), key: <nil>")
    raise SyntaxFault(f"yaml: invalid map key: {_go_syntax(value)}")


def _go_syntax(value: Any) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{_go_syntax(k)}:{_go_syntax(v)}" for k, v in value.items())
        return f"map[interface {{}}]interface {{}}{{{pairs}}}"
    if isinstance(value, list):
        return f"[]interface {{}}{{{', '.join(map(_go_syntax, value))}}}"
    if value is None:
        return "interface {}(nil)"
    return quote(value) if isinstance(value, str) else str(value).lower()


# ---- documents ------------------------------------------------------------------------------------------


class _Frame:
    """An open list or map."""

    __slots__ = ("anchor", "key", "merges", "size", "value")

    def __init__(self, value: Any, anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: Any = _NONE
        self.merges: list[Any] = []
        self.size = 1


class _Composer:
    def __init__(self, data: bytes | str) -> None:
        import yaml

        self._errors = yaml.YAMLError
        self._kinds = yaml.events
        self.twice: list[tuple[int, str]] = []
        try:
            self._parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(data)
        except yaml.YAMLError as e:
            raise SyntaxFault(_message(e)) from None

    def _next(self) -> Any:
        try:
            return self._parser.get_event()
        except self._errors as e:
            raise SyntaxFault(_message(e)) from None

    def more(self) -> bool:
        """Whether another document follows."""
        e = self._kinds
        try:
            if self._parser.check_event(e.StreamStartEvent):
                self._parser.get_event()
            return not self._parser.check_event(e.StreamEndEvent)
        except self._errors as error:
            raise SyntaxFault(_message(error)) from None

    def document(self) -> Any:
        e = self._kinds
        if not self.more():
            return None
        start = self._next()
        if start.version not in (None, (1, 1)):
            raise SyntaxFault("yaml: found incompatible YAML document")
        anchors: dict[str, tuple[Any, int]] = {}
        stack: list[_Frame] = []
        decoded = aliased = 0
        while True:
            event = self._next()
            kind = type(event)
            anchor, size = None, 1
            if kind is e.ScalarEvent:
                decoded += 1
                value = _scalar(event)
                merge = value == "<<" and not event.style and event.tag is None
                if isinstance(value, float):
                    value = value if stack and self._wants_key(stack[-1]) else _number(value)
                anchor = event.anchor
                if merge and stack and self._wants_key(stack[-1]):
                    value = _MERGE
            elif kind is e.AliasEvent:
                if any(frame.anchor == event.anchor for frame in stack):
                    raise SyntaxFault(f"yaml: anchor '{event.anchor}' value contains itself")
                if event.anchor not in anchors:
                    raise SyntaxFault(f"yaml: unknown anchor '{event.anchor}' referenced")
                value, size = anchors[event.anchor]
                decoded += size
                aliased += size
                if aliased > 100 and decoded > 1000 and aliased / decoded > _allowed_aliases(decoded):
                    raise SyntaxFault("yaml: document contains excessive aliasing")
                value = _copy(value)
            elif kind is e.SequenceStartEvent or kind is e.MappingStartEvent:
                decoded += 1
                if len(stack) >= json.MAX_DEPTH:
                    raise SyntaxFault("yaml: exceeded max depth")
                stack.append(_Frame([] if kind is e.SequenceStartEvent else {}, event.anchor))
                continue
            elif kind is e.SequenceEndEvent or kind is e.MappingEndEvent:
                frame = stack.pop()
                for merge_source in frame.merges:
                    _merge(frame.value, merge_source)
                value, size, anchor = frame.value, frame.size, frame.anchor
            else:  # DocumentEnd
                raise SyntaxFault("yaml: unexpected end of document")
            if anchor is not None:
                anchors[anchor] = (value, size)
            if not stack:
                self._next()  # DocumentEnd
                return value
            self._add(stack[-1], value, size, event)

    @staticmethod
    def _wants_key(frame: _Frame) -> bool:
        return frame.value.__class__ is dict and frame.key is _NONE

    def _add(self, frame: _Frame, value: Any, size: int, event: Any) -> None:
        frame.size += size
        if frame.value.__class__ is list:
            frame.value.append(value)
        elif frame.key is _NONE:
            frame.key = value if value is _MERGE else (_key(value), value)
            if frame.key is not _MERGE and frame.key[0] in frame.value:
                shown = quote(value) if isinstance(value, str) else frame.key[0]
                self.twice.append((event.start_mark.line + 1, shown))
        else:
            if frame.key is _MERGE:
                sources = value if isinstance(value, list) else [value]
                if not all(isinstance(s, dict) for s in sources):
                    raise SyntaxFault("yaml: map merge requires map or sequence of maps as the value")
                frame.merges.extend(sources)
            else:
                frame.value[frame.key[0]] = value
            frame.key = _NONE


_MERGE = object()


def _merge(into: dict[str, Any], source: dict[str, Any]) -> None:
    for key, value in source.items():
        into.setdefault(key, value)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_copy(v) for v in value]
    return value


def _allowed_aliases(decoded: int) -> float:
    """Which part of all nodes may come from aliases: nearly all of a small document, a tenth of a huge one."""
    low, high = 400_000, 4_000_000
    if decoded <= low:
        return 0.99
    if decoded >= high:
        return 0.10
    return 0.99 - 0.89 * (decoded - low) / (high - low)


def _message(error: Any) -> str:
    """go-yaml counts lines from one where scanning stopped, from zero where parsing did, and tells no line zero."""
    problem = getattr(error, "problem", None) or str(error)
    at, context = (getattr(error, f"{which}_mark", None) for which in ("problem", "context"))
    line = 0
    if at is not None and at.line:
        line = at.line + (type(error).__name__ == "ScannerError")
    elif context is not None:
        line = context.line
    return f"yaml: line {line}: {problem}" if line else f"yaml: {problem}"
