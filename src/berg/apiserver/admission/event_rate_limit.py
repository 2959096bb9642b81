"""EventRateLimit: a flood of events does not drown the server.

Source: kubernetes plugin/pkg/admission/eventratelimit.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from berg.apiserver.admission.interface import CREATE, UPDATE, Api, Attributes, Plugin
from berg.machinery.status import ApiError, Obj

DEFAULT_CACHE = 4096


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class EventRateLimit(Plugin):
    name = "EventRateLimit"
    validating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"events", "events.events.k8s.io"})

    def __init__(self, api: Api, config: Obj | None = None) -> None:
        super().__init__(api, config)
        self._buckets: list[OrderedDict[str, _Bucket]] = [OrderedDict() for _ in self._limits]

    @property
    def _limits(self) -> list[Obj]:
        return self.config.get("limits") or []

    def handles(self, a: Attributes) -> bool:
        return not a.dry_run

    async def validate(self, a: Attributes) -> None:
        late = [limit.get("type") for i, limit in enumerate(self._limits) if not self._take(i, limit, a)]
        if late:
            why = f"limit reached on type {late[0]} for key {self._key(str(late[0]), a)}"
            raise ApiError(429, "TooManyRequests", f"Too many requests: {why}")

    def _key(self, kind: str, a: Attributes) -> str:
        match kind:
            case "Namespace":
                return a.namespace
            case "User":
                return a.user.name
            case "SourceAndObject":
                event = a.obj or {}
                source, target = event.get("source") or {}, event.get("involvedObject") or {}
                fields = ("kind", "namespace", "name", "uid", "apiVersion")
                return "".join([*source.values(), *(str(target.get(k) or "") for k in fields)])
        return ""

    def _take(self, i: int, limit: Obj, a: Attributes) -> bool:
        qps, burst = float(limit.get("qps") or 1), float(limit.get("burst") or 1)
        key, now = self._key(limit.get("type") or "", a), self.api.clock.monotonic()
        buckets = self._buckets[i]
        bucket = buckets.pop(key, None) or _Bucket(burst, now)
        bucket.tokens, bucket.at = min(burst, bucket.tokens + (now - bucket.at) * qps), now
        buckets[key] = bucket
        while len(buckets) > int(limit.get("cacheSize") or DEFAULT_CACHE):
            buckets.popitem(last=False)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True
