"""Binding a pod to a node: `pods/NAME/binding`, and the old `bindings`.

Source: kubernetes pkg/registry/core/pod/storage/storage.go, BindingREST.
"""

from __future__ import annotations

from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry.modify import modify
from berg.apiserver.registry.registry import Registry
from berg.apiserver.subresources import reading
from berg.machinery import status
from berg.machinery.clock import rfc3339
from berg.machinery.resources import Resource
from berg.machinery.status import FieldError, Obj

KIND = ("", "v1", "Binding")


async def handle(request: Request, registry: Registry, resource: Resource) -> Response:
    call, binding = reading.created(request, registry, resource, KIND)
    legacy = resource.plural == "bindings"
    call.subresource = call.context.subresource = "binding"  # also when it comes as a Binding of its own
    call.name = call.name or binding["metadata"].get("name") or ""
    attributes = await reading.mutated(call, binding, KIND, resource=resource if legacy else None)
    meta = binding["metadata"]
    if (meta.get("name") or "") != call.name:
        raise status.bad_request("name in URL does not match name in Binding object")
    if faults := [str(e) for e in _validate(binding)]:
        raise status.ApiError(500, "", faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")
    await reading.validate(call, attributes)
    node = binding["target"]["name"]
    now = rfc3339(registry.services.clock.now())

    def assign(pod: Obj) -> None:
        if failed := _failed_precondition(pod["metadata"], binding["metadata"]):
            key = f"/pods/{call.namespace}/{call.name}"
            why = f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {failed}"
            raise status.conflict("", "pods", call.name, why)
        why = _refusal(pod)
        if why:
            raise status.conflict("", "pods/binding", call.name, why)
        pod["spec"]["nodeName"] = node
        pod_meta = pod["metadata"]
        for field in ("annotations", "labels"):
            if meta.get(field):
                pod_meta[field] = {**(pod_meta.get(field) or {}), **meta[field]}
        pod_status = pod.setdefault("status", {})
        pod_status.pop("nominatedNodeName", None)
        _scheduled(pod_status, now)

    await modify(registry, call.namespace, call.name, assign, dry_run=call.dry_run)
    return reading.succeeded(request)


def _validate(binding: Obj) -> list[FieldError]:
    """Source: kubernetes pkg/apis/core/validation, ValidatePodBinding."""
    target = binding.get("target") or {}
    errors = []
    if target.get("kind") not in (None, "", "Node"):
        errors.append(status.not_supported("target.kind", target["kind"], ["Node", "<empty>"]))
    if not target.get("name"):
        errors.append(status.required("target.name"))
    return errors


def _failed_precondition(meta: Obj, wanted: Obj) -> str:
    if wanted.get("uid") and wanted["uid"] != meta["uid"]:
        return f"Precondition failed: UID in precondition: {wanted['uid']}, UID in object meta: {meta['uid']}"
    version = wanted.get("resourceVersion")
    if version and version != meta.get("resourceVersion"):
        return (
            f"Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: "
            f"{meta.get('resourceVersion')}"
        )
    return ""


def _refusal(pod: Obj) -> str:
    meta, spec = pod["metadata"], pod["spec"]
    if meta.get("deletionTimestamp"):
        return f"pod {meta['name']} is being deleted, cannot be assigned to a host"
    if spec.get("nodeName"):
        return f'pod {meta["name"]} is already assigned to node "{spec["nodeName"]}"'
    if spec.get("schedulingGates"):
        return f"pod {meta['name']} has non-empty .spec.schedulingGates"
    return ""


def _scheduled(pod_status: Obj, now: str) -> None:
    conditions = pod_status.setdefault("conditions", [])
    new = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    for i, condition in enumerate(conditions):
        if condition.get("type") == "PodScheduled":
            if condition.get("status") != "True":
                conditions[i] = new
            return
    conditions.append(new)
