"""String and bytes literals: what stands between their quotes.

Source: cel-spec doc/langdef.md, "String and Bytes Values".
"""

from __future__ import annotations

import re

from berg.machinery.cel.syntax import Fault

_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|X([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.S
)
_SIMPLE = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    "'": "'",
    '"': '"',
    "`": "`",
    "?": "?",
}


def unescape(text: str, at: int) -> str | bytes:
    """Raises Fault."""
    start = min(i for i in (text.find('"'), text.find("'")) if i >= 0)
    marks = text[:start].lower()
    quote = (
        text[start : start + 3] if text[start : start + 3] in ('"""', "'''") and len(text) >= start + 6 else text[start]
    )
    inner = text[start + len(quote) : len(text) - len(quote)].replace("\r\n", "\n").replace("\r", "\n")
    raw = "r" in marks
    if "b" not in marks:
        return inner if raw else _ESCAPE.sub(lambda m: _character(m, at), inner)
    if raw:
        return inner.encode()
    out = bytearray()
    end = 0
    for match in _ESCAPE.finditer(inner):
        out += inner[end : match.start()].encode()
        number = match[1] or match[2]
        if number:
            out.append(int(number, 16))
        elif match[5]:
            out.append(int(match[5], 8))
        else:
            out += _character(match, at).encode()
        end = match.end()
    return bytes(out + inner[end:].encode())


def _character(match: re.Match[str], at: int) -> str:
    if match[6] is not None:
        if match[6] not in _SIMPLE:
            raise Fault(at, "unable to unescape string")
        return _SIMPLE[match[6]]
    number = next((int(g, 16) for g in match.groups()[:4] if g is not None), None)
    if number is None:
        number = int(match[5], 8)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise Fault(at, "invalid unicode code point")
    return chr(number)
