"""Evicting a pod: a deletion that a PodDisruptionBudget may refuse.

Source: kubernetes pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from typing import Any

from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry import delete as deleting
from berg.apiserver.registry import delete_options
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.modify import modify
from berg.apiserver.registry.registry import Registry
from berg.apiserver.subresources import reading
from berg.machinery import meta as metas
from berg.machinery import status
from berg.machinery.clock import parse_rfc3339, rfc3339
from berg.machinery.labels import Selector
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj

KIND = ("policy", "v1", "Eviction")
MAX_DISRUPTED_PODS = 2000
RETRY_AFTER_S = 10


async def handle(request: Request, registry: Registry, resource_: Resource) -> Response:
    call, eviction = reading.created(request, registry, resource_, KIND)
    attributes = await reading.mutated(call, eviction, KIND)
    if (eviction["metadata"].get("name") or "") != call.name:
        raise status.bad_request("name in URL does not match name in Eviction object")
    await reading.validate(call, attributes)
    options: Obj = dict(eviction.get("deleteOptions") or {})
    if options.get("ignoreStoreReadErrorWithClusterBreakingPotential"):
        at = "deleteOptions.ignoreStoreReadErrorWithClusterBreakingPotential"
        why = "can not be set for pod eviction, try after removing the option"
        raise status.invalid("policy", "Eviction", call.name, [status.invalid_value(at, True, why)])
    asked, told = (["All"] if call.dry_run else []), options.get("dryRun") or []
    if told and asked and told != asked:
        why = f"Non-matching dry-run options in request and content: [{' '.join(asked)}] and [{' '.join(told)}]"
        raise ApiError(500, "", why)
    if call.dry_run:
        options["dryRun"] = ["All"]
    elif options.get("dryRun"):
        call.context.dry_run = True
    pod = (await registry.entry(call.namespace, call.name)).obj
    if not _ignores_budgets(pod):
        budget = await _budget_of(registry, pod)
        if budget is not None:
            if _may_go_unhealthy(pod, budget):
                options.setdefault("preconditions", {})
                options["preconditions"] = {
                    "resourceVersion": pod["metadata"]["resourceVersion"],
                    **options["preconditions"],
                }
            else:
                await _take_from(registry, call, budget["metadata"]["name"])
    await _delete(call, options)
    return reading.succeeded(request)


def _ignores_budgets(pod: Obj) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or bool(pod["metadata"].get("deletionTimestamp"))


async def _budget_of(registry: Registry, pod: Obj) -> Obj | None:
    budgets = resource("poddisruptionbudgets.policy")
    await registry.services.open(budgets)
    labels = pod["metadata"].get("labels") or {}
    found = [
        b
        for b in registry.services.list(budgets, pod["metadata"]["namespace"])
        if labels and Selector.of((b.get("spec") or {}).get("selector")).matches(labels)
    ]
    if len(found) > 1:
        why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise ApiError(500, "", why)
    return found[0] if found else None


def _may_go_unhealthy(pod: Obj, budget: Obj) -> bool:
    """A pod that is not ready does not count; it may go when the rest is well, or always if the budget says so."""
    if metas.condition_true(pod, "Ready"):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    state = budget.get("status") or {}
    desired = state.get("desiredHealthy", 0)
    return state.get("currentHealthy", 0) >= desired > 0


async def _take_from(registry: Registry, call: Call, name: str) -> None:
    """Takes one disruption from the budget. Raises TooManyRequests when there is none."""
    budgets = registry.services.registry(resource("poddisruptionbudgets.policy"))
    now = registry.services.clock.now()

    def take(budget: Obj) -> None:
        state = budget.setdefault("status", {})
        meta = budget["metadata"]
        allowed = state.get("disruptionsAllowed", 0)
        if state.get("observedGeneration", 0) < meta.get("generation", 0):
            raise _refused(name, f"The disruption budget {name} is still being processed by the server.", RETRY_AFTER_S)
        if allowed < 0:
            raise status.forbidden("policy", "poddisruptionbudgets", name, "pdb disruptions allowed is negative")
        disrupted: dict[str, Any] = state.get("disruptedPods") or {}
        if len(disrupted) > MAX_DISRUPTED_PODS:
            raise status.forbidden(
                "policy",
                "poddisruptionbudgets",
                name,
                "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            )
        if allowed == 0:
            raise _refused(
                name,
                f"The disruption budget {name} needs {state.get('desiredHealthy', 0)} healthy pods and has "
                f"{state.get('currentHealthy', 0)} currently",
            )
        state["disruptionsAllowed"] = allowed - 1
        if allowed == 1:
            _set_disallowed(budget, rfc3339(now))
        state["disruptedPods"] = {**disrupted, call.name: rfc3339(now)}

    await modify(budgets, call.namespace, name, take, dry_run=call.dry_run)


def _set_disallowed(budget: Obj, now: str) -> None:
    conditions = budget["status"].setdefault("conditions", [])
    new = {
        "type": "DisruptionAllowed",
        "status": "False",
        "reason": "InsufficientPods",
        "message": "",
        "lastTransitionTime": now,
        "observedGeneration": budget["status"].get("observedGeneration", 0),
    }
    metas.set_condition(conditions, new, parse_rfc3339(now))


def _refused(name: str, cause: str, retry_after_s: int | None = None) -> ApiError:
    error = status.too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.")
    error.retry_after_s = retry_after_s
    error.details = {"causes": [{"reason": "DisruptionBudget", "message": cause}]}
    return error


async def _delete(call: Call, options: Obj) -> None:
    now = rfc3339(call.context.clock.now())

    def mark(pod: Obj) -> None:
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
            "lastProbeTime": None,
        }
        conditions = pod.setdefault("status", {}).setdefault("conditions", [])
        metas.set_condition(conditions, condition, parse_rfc3339(now))

    delete_options.validate(options)
    wanted = options.get("preconditions") or {}
    if not call.dry_run:
        if "resourceVersion" in wanted:
            entry = await call.registry.entry(call.namespace, call.name)
            if entry.obj["metadata"]["resourceVersion"] != wanted["resourceVersion"]:
                raise call.registry.conflict(call.name)
        marked = await modify(call.registry, call.namespace, call.name, mark)
        if "resourceVersion" in wanted:
            options["preconditions"] = {**wanted, "resourceVersion": str(marked.revision)}
    call.subresource = ""
    call.admission = False
    await deleting.delete(call, options)
