"""The AdmissionReview: what a webhook is asked, and what its answer has to look like.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/{request,errors}.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from dataclasses import dataclass, field
from typing import Any

from berg.apiserver.admission.interface import Attributes
from berg.apiserver.admission.sight import Sight
from berg.apiserver.admission.webhook.caller import Caller
from berg.apiserver.admission.webhook.hooks import CallFailed, Invocation
from berg.machinery.codec import json
from berg.machinery.status import ApiError, Obj

_GROUP = "admission.k8s.io"
_VERSIONS = ("v1", "v1beta1")


@dataclass(slots=True)
class Answer:
    allowed: bool
    patch: list[Any] = field(default_factory=list)
    result: Obj | None = None


async def ask(client: Caller, a: Attributes, invocation: Invocation, sight: Sight, *, mutating: bool) -> Answer:
    """Calls the webhook; its warnings and audit annotations are noted. Raises CallFailed."""
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
        response = _response(answer, uid, version)
        patch = _patch(response, version) if mutating else _no_patch(response, version)
    except ValueError as e:
        raise CallFailed(hook, f"received invalid webhook response: {e}") from None
    for key, value in (response.get("auditAnnotations") or {}).items():
        a.audit_annotations[f"{hook.name}/{key}"] = value
    a.warnings.extend(response.get("warnings") or ())
    return Answer(bool(response.get("allowed")), _decoded(invocation, patch), response.get("status"))


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
        if type_ not in (None, "JSONPatch"):
            raise ValueError(f'unsupported patch type "{type_}"')
    return str(patch)


def _no_patch(response: Obj, version: str) -> str:
    if version == "v1":
        if response.get("patch"):
            raise ValueError("validating webhook may not return response.patch")
        if response.get("patchType") is not None:
            raise ValueError("validating webhook may not return response.patchType")
    return ""


def _decoded(invocation: Invocation, patch: str) -> list[Any]:
    if not patch:
        return []
    try:
        decoded = json.loads(base64.b64decode(patch, validate=True))
    except (binascii.Error, ValueError) as e:
        raise CallFailed(invocation.hook, f"received undecodable patch in webhook response: {e}") from None
    if decoded is None:
        return []
    if not isinstance(decoded, list):
        raise CallFailed(invocation.hook, "received undecodable patch in webhook response: not a list")
    return decoded


def denial(invocation: Invocation, result: Obj | None) -> ApiError:
    """What the client is told: always a failure, whatever the webhook called it."""
    result = result or {}
    said = result.get("message") or result.get("reason")
    denied = f'admission webhook "{invocation.hook.name}" denied the request'
    return ApiError(
        max(int(result.get("code") or 0), 400),
        str(result.get("reason") or ""),
        f"{denied}: {said}" if said else f"{denied} without explanation",
        result.get("details"),
    )
