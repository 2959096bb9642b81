"""Read-only access to the objects other than nodes and pods that plugins decide by.

The core sees this small interface; `ObjectStore` is its body: dicts, filled by informers or by a test. `version(kind)`
changes with every change of that kind, so that what was derived can be kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

Obj = dict[str, Any]


class Objects(Protocol):
    def get(self, kind: str, namespace: str, name: str) -> Obj | None: ...

    def list(self, kind: str, namespace: str | None = None) -> Iterable[Obj]: ...

    def version(self, kind: str) -> int: ...


class ObjectStore:
    def __init__(self) -> None:
        self._by_kind: dict[str, dict[str, dict[str, Obj]]] = {}
        self._versions: dict[str, int] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    def get(self, kind: str, namespace: str, name: str) -> Obj | None:
        return self._by_kind.get(kind, {}).get(namespace, {}).get(name)

    def list(self, kind: str, namespace: str | None = None) -> Iterable[Obj]:
        by_namespace = self._by_kind.get(kind, {})
        if namespace is not None:
            return list(by_namespace.get(namespace, {}).values())
        return [o for objs in by_namespace.values() for o in objs.values()]

    def version(self, kind: str) -> int:
        return self._versions.get(kind, 0)

    def set(self, kind: str, obj: Obj) -> None:
        meta = obj["metadata"]
        self._by_kind.setdefault(kind, {}).setdefault(meta.get("namespace") or "", {})[meta["name"]] = obj
        self._changed(kind)

    def delete(self, kind: str, obj: Obj) -> None:
        meta = obj["metadata"]
        self._by_kind.get(kind, {}).get(meta.get("namespace") or "", {}).pop(meta["name"], None)
        self._changed(kind)

    def _changed(self, kind: str) -> None:
        self._versions[kind] = self._versions.get(kind, 0) + 1
        for waiter in self._waiters.pop(kind, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self, kind: str) -> None:
        """Until the next change of that kind."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(kind, []).append(waiter)
        await waiter
