"""What an operation returns when nothing was stored (a dry run): shaped like a cache entry."""

from __future__ import annotations

from functools import cached_property

from berg.machinery.codec import json as json_codec
from berg.machinery.status import Obj


class Unstored:
    stale = False

    def __init__(self, key: str, obj: Obj, revision: int = 0) -> None:
        self.key = key
        self.obj = obj
        self.revision = revision
        self.namespace, _, self.name = key.rpartition("/")

    @cached_property
    def raw(self) -> bytes:
        return json_codec.dumps(self.obj)

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = (self.obj["metadata"]).get("labels") or {}
        return labels
