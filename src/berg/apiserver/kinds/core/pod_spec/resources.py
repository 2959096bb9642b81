"""Resource lists of pods: canonical writing, sums over containers, the pod-level defaults, the QoS class.

Source: component-helpers/resource/helpers.go; kubernetes pkg/apis/core/v1/helper/qos; KEP-2837 (pod-level
resources); KEP-753 (sidecars).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from berg.machinery import quantity
from berg.machinery.quantity import Quantity
from berg.machinery.status import Obj

Amounts = dict[str, Quantity]

_LISTS = ("limits", "requests")


def canonical_list(amounts: Obj) -> None:
    """Every amount as upstream writes it, rounded up to thousandths. What is no quantity stays: validation's."""
    for name, amount in amounts.items():
        if isinstance(amount, (str, int, float)) and (text := _to_thousandths(amount)) != amount:
            amounts[name] = text


@lru_cache(maxsize=4096, typed=True)
def _to_thousandths(amount: str | int | float) -> str | int | float:
    try:
        q = quantity.of(amount)
    except ValueError:
        return amount
    return str(quantity.from_milli(q.milli(), q.format) if q.nano % 1_000_000 else q)


def canonical_requirements(requirements: Obj) -> None:
    for key in _LISTS:
        if amounts := requirements.get(key):
            canonical_list(amounts)


def parsed(amounts: Obj | None) -> Amounts:
    """What is no quantity is left out."""
    found: Amounts = {}
    for name, amount in (amounts or {}).items():
        try:
            found[name] = quantity.of(amount)
        except ValueError:
            continue
    return found


def add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total[name] + amount if name in total else amount


def raise_to(total: Amounts, least: Amounts) -> None:
    for name, amount in least.items():
        if name not in total or total[name] < amount:
            total[name] = amount


def is_sidecar(init_container: Obj) -> bool:
    return init_container.get("restartPolicy") == "Always"


def container_sum(spec: Obj, which: str) -> Amounts:
    """What the containers together need (`which`: requests or limits): the running ones, or the hungriest moment
    of initialization, sidecars being part of both."""
    total: Amounts = {}
    for c in spec.get("containers") or ():
        add(total, parsed((c.get("resources") or {}).get(which)))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for c in spec.get("initContainers") or ():
        own = parsed((c.get("resources") or {}).get(which))
        if is_sidecar(c):
            add(total, own)
            add(sidecars, own)
            raise_to(peak, sidecars)
        else:
            add(own, sidecars)
            raise_to(peak, own)
    raise_to(total, peak)
    return total


def is_pod_level(name: str) -> bool:
    return name in ("cpu", "memory") or name.startswith("hugepages-")


def pod_requests(spec: Obj) -> Amounts:
    """What the scheduler and quotas count: containers, pod-level requests over them, overhead."""
    total = container_sum(spec, "requests")
    for name, amount in parsed((spec.get("resources") or {}).get("requests")).items():
        if is_pod_level(name):
            total[name] = amount
    add(total, parsed(spec.get("overhead")))
    return total


def pod_limits(spec: Obj) -> Amounts:
    total = container_sum(spec, "limits")
    for name, amount in parsed((spec.get("resources") or {}).get("limits")).items():
        if is_pod_level(name):
            total[name] = amount
    for name, amount in parsed(spec.get("overhead")).items():
        if name in total:
            total[name] = total[name] + amount
    return total


def default_pod_level(spec: Obj) -> None:
    """Pod-level huge-page limits and requests that follow from the containers'."""
    resources = spec["resources"]
    limits, requests = resources.get("limits"), resources.get("requests")
    if limits or requests:
        for name, amount in container_sum(spec, "limits").items():
            if name.startswith("hugepages-") and name not in (requests or {}) and name not in (limits or {}):
                limits = resources.setdefault("limits", {})
                limits[name] = str(amount)
    if not limits:
        return
    found = dict(requests or {})
    for name, amount in container_sum(spec, "requests").items():
        if is_pod_level(name) and not name.startswith("hugepages-"):
            found.setdefault(name, str(amount))
    for name, amount in limits.items():
        if is_pod_level(name):
            found.setdefault(name, amount)
    if found:
        resources["requests"] = found


def _positive(amounts: Obj | None) -> Iterator[tuple[str, Quantity]]:
    for name, amount in parsed(amounts).items():
        if name in ("cpu", "memory") and amount.nano > 0:
            yield name, amount


def qos_class(pod: Obj) -> str:
    """Guaranteed, Burstable or BestEffort."""
    spec = pod.get("spec") or {}
    if spec.get("resources") is not None:
        holders = [spec["resources"]]
    else:
        holders = [
            c.get("resources") or {} for c in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        ]
    requests: Amounts = {}
    limits: Amounts = {}
    guaranteed = True
    for holder in holders:
        add(requests, dict(_positive(holder.get("requests"))))
        own = dict(_positive(holder.get("limits")))
        add(limits, own)
        guaranteed = guaranteed and len(own) == 2
    if not requests and not limits:
        return "BestEffort"
    if (
        guaranteed
        and len(requests) == len(limits)
        and all(name in limits and limits[name].same(amount) for name, amount in requests.items())
    ):
        return "Guaranteed"
    return "Burstable"
