"""What the library's grammar lacks, put in words that it knows.

a.?b.?c.orValue(x)   →  optSelect(optSelect(a, "b"), "c").orValue(x)
a[?k]                →  optIndex(a, k)
cel.bind(x, e, body) →  [e].map(x, body)[0]
m.all(k, v, body)    →  twoKeys(m).all(k, [twoAt(m, k)].all(v, body))
"""

from __future__ import annotations

import re

_TWO = re.compile(
    r"\.(all|exists|existsOne|exists_one|transformList|transformMap)\(\s*([A-Za-z_]\w*)\s*,\s*([A-Za-z_]\w*)\s*,"
)
_OPENING, _CLOSING = {")": "(", "]": "[", "}": "{"}, {"(": ")", "[": "]", "{": "}"}


def rewrite(text: str) -> str:
    if ".?" in text:
        text = _optional_fields(text)
    if "[?" in text:
        text = _optional_indexes(text)
    if "cel.bind(" in text:
        text = _binds(text)
    if _TWO.search(text):
        text = _two_variables(text)
    return text


def _strings(text: str) -> list[bool]:
    """For each character: is it inside a string literal?"""
    inside = [False] * len(text)
    quote = ""
    i = 0
    while i < len(text):
        c = text[i]
        if quote:
            inside[i] = True
            if c == "\\":
                if i + 1 < len(text):
                    inside[i + 1] = True
                i += 1
            elif c == quote:
                quote = ""
        elif c in "'\"":
            quote = c
            inside[i] = True
        i += 1
    return inside


def _receiver(text: str, end: int, inside: list[bool]) -> int:
    """Where the expression that ends at `end` begins."""
    i = end - 1
    while i >= 0:
        c = text[i]
        if inside[i] or c.isalnum() or c in "_.":
            i -= 1
        elif c in _OPENING:
            depth = 1
            i -= 1
            while i >= 0 and depth:
                if not inside[i]:
                    depth += (text[i] in _OPENING) - (text[i] in _CLOSING)
                i -= 1
        else:
            break
    return i + 1


def _optional_fields(text: str) -> str:
    while True:
        inside = _strings(text)
        at = next((i for i in range(len(text) - 1) if text[i : i + 2] == ".?" and not inside[i]), -1)
        if at < 0:
            return text
        end = at + 2
        while end < len(text) and (text[end].isalnum() or text[end] == "_"):
            end += 1
        start = _receiver(text, at, inside)
        text = f'{text[:start]}optSelect({text[start:at]}, "{text[at + 2 : end]}"){text[end:]}'


def _optional_indexes(text: str) -> str:
    while True:
        inside = _strings(text)
        at = next((i for i in range(len(text) - 1) if text[i : i + 2] == "[?" and not inside[i]), -1)
        if at <= 0 or not (text[at - 1].isalnum() or text[at - 1] in "_)]"):
            return text
        end = _matching(text, at, inside)
        start = _receiver(text, at, inside)
        text = f"{text[:start]}optIndex({text[start:at]}, {text[at + 2 : end]}){text[end + 1 :]}"


def _matching(text: str, opening: int, inside: list[bool]) -> int:
    depth = 0
    for i in range(opening, len(text)):
        if inside[i]:
            continue
        depth += (text[i] in _CLOSING) - (text[i] in _OPENING)
        if depth == 0:
            return i
    return len(text) - 1


def _arguments(text: str, opening: int, end: int, inside: list[bool]) -> list[str]:
    """What stands between a call's parentheses, split at its commas."""
    parts, depth, start = [], 0, opening + 1
    for i in range(opening + 1, end):
        if inside[i]:
            continue
        depth += (text[i] in _CLOSING) - (text[i] in _OPENING)
        if text[i] == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:end].strip()]


def _two_variables(text: str) -> str:
    """Comprehensions over key and value (or index and element) become nested ones over one variable."""
    position = 0
    while (match := _TWO.search(text, position)) is not None:
        inside = _strings(text)
        at, opening = match.start(), text.index("(", match.start())
        end = _matching(text, opening, inside)
        name, (key, value, *rest) = match.group(1), _arguments(text, opening, end, inside)
        if inside[at] or not rest:
            position = match.end()
            continue
        start = _receiver(text, at, inside)
        of = text[start:at]
        one = f"[twoAt({of}, {key})]"
        keys, body = f"twoKeys({of})", rest[-1]
        if name.startswith("transform"):
            if len(rest) == 2:
                keys = f"{keys}.filter({key}, {one}.exists({value}, {rest[0]}))"
            new = f"{keys}.map({key}, {one}.map({value}, {body})[0])"
            if name == "transformMap":
                new = f"twoMap({keys}, {new})"
        else:
            macro = {"existsOne": "exists_one"}.get(name, name)
            inner = "exists" if macro == "exists_one" else macro
            new = f"{keys}.{macro}({key}, {one}.{inner}({value}, {body}))"
        text = text[:start] + new + text[end + 1 :]
    return text


def _binds(text: str) -> str:
    while (at := text.find("cel.bind(")) >= 0:
        inside = _strings(text)
        opening = at + len("cel.bind")
        end = _matching(text, opening, inside)
        commas, depth = [], 0
        for i in range(opening + 1, end):
            if inside[i]:
                continue
            depth += (text[i] in _CLOSING) - (text[i] in _OPENING)
            if text[i] == "," and depth == 0:
                commas.append(i)
        if len(commas) < 2:
            return text
        name, value = text[opening + 1 : commas[0]], text[commas[0] + 1 : commas[1]]
        body = text[commas[1] + 1 : end]
        text = f"{text[:at]}[{value}].map({name}, {body})[0]{text[end + 1 :]}"
    return text
