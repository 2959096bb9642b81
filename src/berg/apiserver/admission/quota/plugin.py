"""ResourceQuota: a write that would use more than a namespace's quotas allow is refused, and what it uses is booked in
their status before it is stored.

One write at a time per namespace; the booking is optimistic, so that a quota controller (or another server) may write
the same status. What is booked and then not stored comes back with the quota controller's next count.

Source: k8s.io/apiserver pkg/admission/plugin/resourcequota.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from berg.apiserver.admission.interface import CREATE, UPDATE, Api, Attributes, Plugin
from berg.apiserver.admission.quota import usage
from berg.apiserver.admission.refusal import forbidden
from berg.apiserver.kinds.core.pod_spec.resources import Amounts, parsed
from berg.machinery import quotas as counting
from berg.machinery.quantity import Quantity
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

RETRIES = 3
_IGNORED = frozenset({"events", "events.events.k8s.io"})


def _show(amounts: Amounts) -> str:
    return ",".join(f"{name}={amounts[name]}" for name in sorted(amounts))


class ResourceQuota(Plugin):
    name = "ResourceQuota"
    validating = True
    operations = frozenset({CREATE, UPDATE})
    subresources = None

    def __init__(self, api: Api, config: Obj | None = None) -> None:
        super().__init__(api, config)
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    def handles(self, a: Attributes) -> bool:
        return (
            bool(a.namespace)
            and a.obj is not None
            and a.resource.group_resource not in _IGNORED
            and a.resource.group_resource != "namespaces"
            and usage.handles(a)
        )

    @asynccontextmanager
    async def _turn(self, namespace: str) -> AsyncIterator[None]:
        lock, waiting = self._turns.get(namespace) or (asyncio.Lock(), 0)
        self._turns[namespace] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns[namespace]
            if waiting == 1:
                del self._turns[namespace]
            else:
                self._turns[namespace] = (lock, waiting - 1)

    def _quotas(self, namespace: str) -> list[Obj]:
        return self.api.list(resource("resourcequotas"), namespace)

    async def validate(self, a: Attributes) -> None:
        if not self._quotas(a.namespace) and not self.config.get("limitedResources"):
            return
        async with self._turn(a.namespace):
            await self._book(a)

    async def _book(self, a: Attributes) -> None:
        for attempt in range(RETRIES + 1):
            changed = self.check(a, self._quotas(a.namespace))
            if a.dry_run or not changed:
                return
            try:
                for quota in changed:
                    await self.api.update(resource("resourcequotas"), a.namespace, quota, "status")
                return
            except ApiError as e:
                if e.reason not in ("Conflict", "NotFound") or attempt == RETRIES:
                    raise

    def check(self, a: Attributes, quotas: list[Obj]) -> list[Obj]:
        """The quotas as they will be. Raises Forbidden."""
        kind, obj = a.resource.group_resource, a.obj or {}
        interesting: list[Obj] = []
        covered: set[str] = set()
        scopes: list[Obj] = []
        for quota in quotas:
            selectors = counting.selectors(quota)
            met = [s for s in selectors if counting.in_scope(kind, s, obj)]
            scopes += met
            status = quota.get("status") or {}
            restricted = usage.matching(kind, set(status.get("hard") or ()))
            if len(met) != len(selectors) or not restricted:
                continue
            name = quota["metadata"]["name"]
            if kind == "pods" and (fault := usage.missing(obj, restricted)):
                raise forbidden(a, f"failed quota: {name}: {fault}")
            unknown = restricted - set(status.get("used") or ())
            if unknown:
                listed = ",".join(sorted(restricted))
                raise forbidden(a, f"status unknown for quota: {name}, resources: {listed}")
            interesting.append(quota)
            covered |= restricted
        used = counting.usage(kind, obj, self.api.clock.now())
        before = counting.usage(kind, a.old, self.api.clock.now()) if a.operation == UPDATE and a.old else {}
        if any(amount.nano < 0 for amount in used.values()):
            names = ",".join(sorted(n for n, amount in used.items() if amount.nano < 0))
            raise forbidden(a, f"quota usage is negative for resource(s): {names}")
        self._limited(a, used, before, covered, scopes)
        changed = []
        for quota in interesting:
            met_before = bool(before) and all(
                counting.in_scope(kind, s, a.old or {}) for s in counting.selectors(quota)
            )
            delta = _more(used, before if met_before else {})
            if delta and (new := self._add(a, quota, delta)) is not None:
                changed.append(new)
        return changed

    def _limited(self, a: Attributes, used: Amounts, before: Amounts, covered: set[str], scopes: list[Obj]) -> None:
        """What the configuration lets be used only where a quota covers it."""
        limited = self.config.get("limitedResources") or ()
        delta = _more(used, before)
        if not limited or not delta:
            return
        uncovered: set[str] = set()
        for rule in limited:
            if (rule.get("apiGroup") or "", rule.get("resource")) == (a.resource.group, a.resource.plural):
                parts = rule.get("matchContains") or ()
                uncovered |= {n for n in delta if any(p in n for p in parts)} - covered
        if uncovered:
            raise forbidden(a, f"insufficient quota to consume: {','.join(sorted(uncovered))}")
        names = {s.get("scopeName") for s in scopes}
        for rule in limited:
            for selector in rule.get("matchScopes") or ():
                met = counting.in_scope(a.resource.group_resource, selector, a.obj or {})
                if met and selector.get("scopeName") not in names:
                    values = " ".join(selector.get("values") or ())
                    shown = f"{{{selector.get('scopeName')} {selector.get('operator')} [{values}]}}"
                    raise ApiError(500, "", f"insufficient quota to match these scopes: [{shown}]")

    def _add(self, a: Attributes, quota: Obj, delta: Amounts) -> Obj | None:
        status = quota.get("status") or {}
        hard, known = parsed(status.get("hard")), parsed(status.get("used"))
        requested = {n: amount for n, amount in delta.items() if n in hard}
        new = {n: known[n] + amount if n in known else amount for n, amount in requested.items()}
        exceeded = [n for n, amount in new.items() if hard[n] < amount]
        if exceeded and a.subresource != "status":
            parts = [{n: of[n] for n in exceeded if n in of} for of in (requested, known, hard)]
            raise forbidden(
                a,
                f"exceeded quota: {quota['metadata']['name']}, requested: {_show(parts[0])}, used: {_show(parts[1])}, "
                f"limited: {_show(parts[2])}",
            )
        if not requested:
            return None
        booked = copy.deepcopy(quota)
        booked["status"].setdefault("used", {}).update({n: str(amount) for n, amount in new.items()})
        return booked


def _more(used: Amounts, before: Amounts) -> Amounts:
    """What is used now and was not before; never negative, zeros left out."""
    zero = Quantity(0)
    delta = {n: amount - before.get(n, zero) for n, amount in used.items()}
    return {n: amount for n, amount in delta.items() if amount.nano > 0}
