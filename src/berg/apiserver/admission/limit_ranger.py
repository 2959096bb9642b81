"""LimitRanger: containers get a namespace's default amounts; nothing is smaller or larger than its LimitRanges say.

Source: kubernetes plugin/pkg/admission/limitranger.
"""

from __future__ import annotations

from collections.abc import Iterator

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.apiserver.kinds.core.pod_spec.resources import Amounts, container_sum, is_pod_level, parsed
from berg.machinery.quantity import Quantity
from berg.machinery.resources import resource
from berg.machinery.status import Obj

ANNOTATION = "kubernetes.io/limit-ranger"
_NONE = Quantity(0)


class LimitRanger(Plugin):
    name = "LimitRanger"
    mutating = True
    validating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"pods", "persistentvolumeclaims"})
    subresources = frozenset({"", "resize"})

    def handles(self, a: Attributes) -> bool:
        if a.resource.plural == "pods":
            concerned = a.operation == (UPDATE if a.subresource == "resize" else CREATE)
        else:
            concerned = not a.subresource
        return concerned and a.obj is not None and not (a.old or {}).get("metadata", {}).get("deletionTimestamp")

    def _ranges(self, a: Attributes) -> list[Obj]:
        return self.api.list(resource("limitranges"), a.namespace)

    async def admit(self, a: Attributes) -> None:
        if a.resource.plural == "pods" and a.obj is not None:
            for limit_range in self._ranges(a):
                set_defaults(limit_range, a.obj)

    async def validate(self, a: Attributes) -> None:
        if a.obj is None:
            return
        check = pod_faults if a.resource.plural == "pods" else claim_faults
        for limit_range in self._ranges(a):
            faults = list(dict.fromkeys(check(limit_range, a.obj)))
            if faults:
                raise forbidden(a, faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")


def _items(limit_range: Obj, kind: str) -> Iterator[Obj]:
    for item in (limit_range.get("spec") or {}).get("limits") or ():
        if item.get("type") == kind:
            yield item


def set_defaults(limit_range: Obj, pod: Obj) -> None:
    requests: Obj = {}
    limits: Obj = {}
    for item in _items(limit_range, "Container"):
        requests.update(item.get("defaultRequest") or {})
        limits.update(item.get("default") or {})
    told: list[str] = []
    for key, words in (("containers", "container"), ("initContainers", "init container")):
        for c in pod["spec"].get(key) or ():
            told += _merge(c, requests, limits, words)
    if told:
        metadata = pod["metadata"]
        text = f"LimitRanger plugin set: {'; '.join(told)}"
        metadata["annotations"] = {**(metadata.get("annotations") or {}), ANNOTATION: text}


def _merge(c: Obj, requests: Obj, limits: Obj, words: str) -> list[str]:
    told: list[str] = []
    resources = dict(c.get("resources") or {})
    for which, defaults in (("requests", requests), ("limits", limits)):
        given = resources.get(which) or {}
        missing = {k: v for k, v in defaults.items() if k not in given}
        if missing:
            resources[which] = {**given, **missing}
            told.append(f"{', '.join(sorted(missing))} {which[:-1]} for {words} {c.get('name')}")
    c["resources"] = resources
    return told


def _bounds(item: Obj, kind: str, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for name, least in parsed(item.get("min")).items():
        said = f"minimum {name} usage per {kind} is {least}"
        if name not in requests:
            yield f"{said}.  No request is specified"
        elif requests[name] < least:
            yield f"{said}, but request is {requests[name]}"
        elif name in limits and limits[name] < least:
            yield f"{said}, but limit is {limits[name]}"
    for name, most in parsed(item.get("max")).items():
        said = f"maximum {name} usage per {kind} is {most}"
        if name not in limits:
            yield f"{said}.  No limit is specified"
        elif most < limits[name]:
            yield f"{said}, but limit is {limits[name]}"
        elif name in requests and most < requests[name]:
            yield f"{said}, but request is {requests[name]}"
    for name, ratio in parsed(item.get("maxLimitRequestRatio")).items():
        said = f"{name} max limit to request ratio per {kind} is {ratio}"
        request, limit = requests.get(name, _NONE), limits.get(name, _NONE)
        if request.nano == 0:
            yield f"{said}, but no request is specified or request is 0"
        elif limit.nano == 0:
            yield f"{said}, but no limit is specified or limit is 0"
        elif limit.nano / request.nano > ratio.nano / 1e9:
            yield f"{said}, but provided ratio is {limit.nano / request.nano:f}"


def pod_faults(limit_range: Obj, pod: Obj) -> Iterator[str]:
    spec = pod["spec"]
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for item in (limit_range.get("spec") or {}).get("limits") or ():
        if item.get("type") == "Container":
            for c in containers:
                resources = c.get("resources") or {}
                yield from _bounds(
                    item, "Container", parsed(resources.get("requests")), parsed(resources.get("limits"))
                )
        elif item.get("type") == "Pod":
            yield from _bounds(item, "Pod", _of_pod(spec, "requests"), _of_pod(spec, "limits"))


def _of_pod(spec: Obj, which: str) -> Amounts:
    """Without overhead, which is not the user's choice."""
    total = container_sum(spec, which)
    for name, amount in parsed((spec.get("resources") or {}).get(which)).items():
        if is_pod_level(name):
            total[name] = amount
    return total


def claim_faults(limit_range: Obj, claim: Obj) -> Iterator[str]:
    requests = parsed(((claim.get("spec") or {}).get("resources") or {}).get("requests"))
    for item in _items(limit_range, "PersistentVolumeClaim"):
        yield from _bounds({"min": item.get("min")}, "PersistentVolumeClaim", requests, {})
        for name, most in parsed(item.get("max")).items():
            said = f"maximum {name} usage per PersistentVolumeClaim is {most}"
            if name not in requests:
                yield f"{said}.  No request is specified"
            elif most < requests[name]:
                yield f"{said}, but request is {requests[name]}"
