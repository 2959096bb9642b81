"""How Pod Security says what it found: `containers "a", "b"`, and the verdict of one check.

Source: k8s.io/pod-security-admission policy/helpers.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from berg.machinery.status import Obj


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a pod is refused: `reason (detail)`."""

    reason: str
    detail: str = ""


Check = Callable[[Obj, Obj], Verdict | None]
"""(metadata, spec) → what is wrong, if anything"""


def containers(spec: Obj) -> Iterator[Obj]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(key) or ()


def security(holder: Obj) -> Obj:
    return holder.get("securityContext") or {}


def quoted(items: Iterable[str]) -> str:
    return ", ".join(f'"{i}"' for i in items)


def plural(one: str, many: str, items: Sequence[str] | set[str]) -> str:
    return one if len(items) == 1 else many


def named(found: Sequence[str]) -> str:
    """`container "a"`, `containers "a", "b"`"""
    return f"{plural('container', 'containers', found)} {quoted(found)}"


def setters(pod: bool, found: Sequence[str]) -> str:
    """Who set something: the pod, its containers, or both."""
    return " and ".join(filter(None, ("pod" if pod else "", named(found) if found else "")))


def is_windows(spec: Obj) -> bool:
    return (spec.get("os") or {}).get("name") == "windows"


def has_user_namespace(spec: Obj) -> bool:
    """Then root in the pod is nobody outside."""
    return spec.get("hostUsers") is False
