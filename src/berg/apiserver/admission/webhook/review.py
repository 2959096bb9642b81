"""The AdmissionReview: what a webhook is asked, and what its answer has to look like.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/{request,errors}.
"""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass, field
from typing import Any

from berg.apiserver.admission.interface import Attributes
from berg.apiserver.admission.sight import Sight
from berg.apiserver.admission.webhook.caller import Caller
from berg.apiserver.admission.webhook.hooks import CallFailed, Hook, Invocation
from berg.machinery import schema
from berg.machinery.codec import json
from berg.machinery.status import ApiError, Obj

_GROUP = "admission.k8s.io"
_VERSIONS = ("v1", "v1beta1")
_SCHEME = "k8s.io/apiserver/pkg/util/webhook/client.go:71"
"""what upstream calls the set of types that it reads answers with"""


@dataclass(slots=True)
class Answer:
    patch: list[Any] = field(default_factory=list)


class Denied(ApiError):
    """The webhook said no. What it said beside it is passed on."""

    def __init__(self, hook: Hook, result: Obj) -> None:
        said = result.get("message") or result.get("reason")
        denied = f'admission webhook "{hook.name}" denied the request'
        super().__init__(
            max(int(result.get("code") or 0), 400),
            str(result.get("reason") or ""),
            f"{denied}: {said}" if said else f"{denied} without explanation",
            result.get("details"),
        )
        self.result = result

    def to_status(self) -> Obj:
        """Always a failure, whatever the webhook called it."""
        told = super().to_status()
        told["metadata"] = self.result.get("metadata") or {}
        called = self.result.get("status")
        told["status"] = called if called and called != "Success" else "Failure"
        return told


async def ask(client: Caller, a: Attributes, invocation: Invocation, sight: Sight, *, mutating: bool) -> Answer:
    """Calls the webhook; its warnings and audit annotations are noted. Raises CallFailed, Denied."""
    hook = invocation.hook
    version = next((v for v in hook.body.get("admissionReviewVersions") or () if v in _VERSIONS), None)
    if version is None:
        why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)"
        raise CallFailed(hook, f"could not create admission objects: {why}", 400)
    uid = str(uuid.uuid4())
    obj, old = await sight.objects(invocation.resource)
    request = {**sight.request(invocation.resource, uid), "object": obj, "oldObject": old}
    review = {"kind": "AdmissionReview", "apiVersion": f"{_GROUP}/{version}", "request": request}
    answer = await client.ask(a, invocation, uid, json.dumps(review), mutating=mutating)
    try:
        _check_types(answer, version)
    except ValueError as e:
        raise CallFailed(hook, f"failed to call webhook: {e}") from None
    try:
        response = _response(answer, uid, version)
        patch = _patch(response, version) if mutating else _no_patch(response, version)
    except ValueError as e:
        raise CallFailed(hook, f"received invalid webhook response: {e}") from None
    for key, value in (response.get("auditAnnotations") or {}).items():
        a.annotate(f"{hook.name}/{key}", value)
    a.warnings.extend(response.get("warnings") or ())
    if not response.get("allowed"):
        raise Denied(hook, response.get("status") or {})
    if not patch:
        return Answer()
    operations = _operations(hook, patch)
    if operations and version == "v1" and response.get("patchType") != "JSONPatch":
        why = f'unsupported patch type "{response.get("patchType")}"'
        raise CallFailed(hook, why, max(int((response.get("status") or {}).get("code") or 0), 400))
    return Answer(operations)


def _check_types(answer: Any, version: str) -> None:
    """Raises ValueError: it is no review of this version, or something in it is not of its type."""
    if not isinstance(answer, dict):
        return
    group, _, own = str(answer.get("apiVersion") or "").rpartition("/")
    kind = answer.get("kind") or ""
    if kind and own and (group, kind) == ("", "Status"):
        raise ValueError(f"converting (v1.Status) to ({version}.AdmissionReview): unknown conversion")
    if kind and own and (group not in (_GROUP, "") or own not in _VERSIONS or kind != "AdmissionReview" or not group):
        known = f'in scheme "{_SCHEME}"'
        shown = f"{group}/{own}" if group else own
        raise ValueError(f'no kind "{kind}" is registered for version "{shown}" {known}')
    if kind and own and own != version:
        raise ValueError(f"converting ({own}.AdmissionReview) to ({version}.AdmissionReview): unknown conversion")
    type_ = schema.type_of(_GROUP, version, "AdmissionReview")
    if type_ is not None:
        try:
            schema.decode(type_, answer)
        except schema.WrongType as e:
            raise ValueError(str(e)) from None


def _response(answer: Any, uid: str, version: str) -> Obj:
    response = answer.get("response") if isinstance(answer, dict) else None
    if not isinstance(response, dict):
        raise ValueError("webhook response was absent")
    if version == "v1":
        if response.get("uid", "") != uid:
            raise ValueError(f'expected response.uid="{uid}", got "{response.get("uid", "")}"')
        group, _, own = str(answer.get("apiVersion") or "").rpartition("/")
        kind = answer.get("kind") or ""
        if (group, own, kind) != (_GROUP, version, "AdmissionReview"):
            wanted = f"{_GROUP}/{version}, Kind=AdmissionReview"
            raise ValueError(f"expected webhook response of {wanted}, got {group}/{own}, Kind={kind}")
    return response


def _patch(response: Obj, version: str) -> str:
    patch, type_ = response.get("patch") or "", response.get("patchType")
    if version == "v1":
        if patch and type_ is None:
            raise ValueError("webhook returned response.patch but not response.patchType")
        if not patch and type_ is not None:
            raise ValueError("webhook returned response.patchType but not response.patch")
        if type_ == "":
            raise ValueError('webhook returned invalid response.patchType of ""')
    return str(patch)


def _no_patch(response: Obj, version: str) -> str:
    if version == "v1":
        if response.get("patch"):
            raise ValueError("validating webhook may not return response.patch")
        if response.get("patchType") is not None:
            raise ValueError("validating webhook may not return response.patchType")
    return ""


def _operations(hook: Hook, patch: str) -> list[Any]:
    try:
        decoded = json.loads(base64.b64decode(patch))
    except ValueError as e:
        raise CallFailed(hook, f"received undecodable patch in webhook response: {e}") from None
    if decoded is None:
        return []
    bad = next((o for o in decoded if not isinstance(o, dict)), None) if isinstance(decoded, list) else decoded
    if bad is not None:
        wanted = "jsonpatch.Operation" if isinstance(decoded, list) else "jsonpatch.Patch"
        given = {dict: "object", list: "array", str: "string", bool: "bool"}.get(type(bad), "number")
        why = f"json: cannot unmarshal {given} into Go value of type {wanted}"
        raise CallFailed(hook, f"received undecodable patch in webhook response: {why}")
    return list(decoded)
