"""Field selectors: `spec.nodeName=n1,status.phase!=Running`.

Source: k8s.io/apimachinery pkg/fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    field: str
    equal: bool
    value: str


@dataclass(frozen=True, slots=True)
class FieldSelector:
    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, get: Callable[[str], str]) -> bool:
        """`get(field)` gives the object's value; an unknown field has been refused before."""
        return all((get(r.field) == r.value) == r.equal for r in self.requirements)

    @property
    def everything(self) -> bool:
        return not self.requirements

    def exact(self, field: str) -> str | None:
        """The one value this field must have, if the selector says so."""
        for r in self.requirements:
            if r.field == field and r.equal:
                return r.value
        return None

    def __str__(self) -> str:
        return ",".join(f"{r.field}{'=' if r.equal else '!='}{_escape(r.value)}" for r in self.requirements)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _split(text: str) -> list[str]:
    terms, term, escaped = [], "", False
    for c in text:
        if escaped:
            term += "\\" + c
            escaped = False
        elif c == "\\":
            escaped = True
        elif c == ",":
            terms.append(term)
            term = ""
        else:
            term += c
    return [t for t in [*terms, term + ("\\" if escaped else "")] if t]


def _unescape(value: str) -> str:
    out, escaped = "", False
    for c in value:
        if escaped:
            if c not in "\\,=":
                raise ValueError(f"invalid field selector: invalid escape sequence: \\{c}")
            out += c
            escaped = False
        elif c == "\\":
            escaped = True
        elif c in ",=":
            raise ValueError(f"invalid field selector: unescaped character in value: {ord(c)}")
        else:
            out += c
    if escaped:
        raise ValueError("invalid field selector: invalid escape sequence: \\")
    return out


@lru_cache(maxsize=1024)
def parse(text: str) -> FieldSelector:
    """Raises ValueError with upstream's message."""
    found = []
    for term in _split(text):
        for operator, equal in (("!=", False), ("==", True), ("=", True)):
            left, hit, right = term.partition(operator)
            if hit and not (operator == "=" and left.endswith("!")):
                value = _unescape(right)
                if left or value:
                    found.append(FieldRequirement(left, equal, value))
                break
        else:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
    return FieldSelector(tuple(found))
