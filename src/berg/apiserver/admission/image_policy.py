"""ImagePolicyWebhook: another server says whether a pod's images may run; its answers are kept for a while.

Source: kubernetes plugin/pkg/admission/imagepolicy.
"""

from __future__ import annotations

from typing import Any

from berg.apiserver.admission.interface import CREATE, UPDATE, Api, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.machinery.codec import json
from berg.machinery.status import Obj

_PREFIX = "imagepolicywebhook.image-policy.k8s.io/"
_FAILED_OPEN = "alpha.image-policy.k8s.io/failed-open"
_MOST_KEPT = 1024
_SPANS = {
    "retryBackoff": ("1ns", 0.001, 1e-9, "5m0s", 300.0, 0.5),
    "allowTTL": ("1s", 1.0, 1.0, "30m0s", 1800.0, 300.0),
    "denyTTL": ("1s", 1.0, 1.0, "30m0s", 1800.0, 30.0),
}
"""field → the least as it is shown, the seconds of a unit, the least, the most as it is shown, the most, the default"""


class BadImagePolicy(ValueError):
    """The configuration cannot be used."""


class ImagePolicyWebhook(Plugin):
    name = "ImagePolicyWebhook"
    validating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"pods"})
    subresources = frozenset({"", "ephemeralcontainers"})

    def __init__(self, api: Api, config: Obj | None = None) -> None:
        """Raises BadImagePolicy, BadKubeconfig."""
        super().__init__(api, config)
        from berg.apiserver.http.remote import Backoff, read

        if not config:
            raise BadImagePolicy("no config specified")
        wanted = config.get("imagePolicy") or {}
        self._backoff = Backoff(first_s=_seconds(wanted, "retryBackoff"))
        self._kept_s = {True: _seconds(wanted, "allowTTL"), False: _seconds(wanted, "denyTTL")}
        self._open = bool(wanted.get("defaultAllow"))
        self._remote = read(wanted.get("kubeConfigFile") or "")
        self._kept: dict[bytes, tuple[Obj, float]] = {}

    async def close(self) -> None:
        await self._remote.close()

    async def validate(self, a: Attributes) -> None:
        if a.obj is None:
            return
        spec, meta = a.obj["spec"], a.obj["metadata"]
        fields = ("ephemeralContainers",) if a.subresource else ("containers", "initContainers")
        images = [{"image": c.get("image") or ""} for field in fields for c in spec.get(field) or ()]
        annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if ".image-policy.k8s.io/" in k}
        review: Obj = {"containers": images, "namespace": a.namespace}
        if annotations:
            review["annotations"] = annotations
        said = await self._asked(a, review)
        if said is None:
            return
        for key, value in (said.get("auditAnnotations") or {}).items():
            a.annotate(f"{_PREFIX}{key}", str(value))
        if said.get("allowed") is True:
            return
        if said.get("reason"):
            raise forbidden(a, f"image policy webhook backend denied one or more images: {said['reason']}")
        raise forbidden(a, "one or more images rejected by webhook backend")

    async def _asked(self, a: Attributes, spec: Obj) -> Obj | None:
        """The review's status; None: nobody answered, and that is no obstacle. Raises Forbidden."""
        from berg.apiserver.http.remote import RemoteError

        clock, key = self.api.clock, json.dumps(spec)
        kept = self._kept.get(key)
        if kept is not None and clock.monotonic() < kept[1]:
            return kept[0]
        body = {"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview", "metadata": {}, "spec": spec}
        try:
            answer = await self._remote.post_patiently({**body, "status": {"allowed": False}}, clock, self._backoff)
        except RemoteError as e:
            if not self._open:
                raise forbidden(a, str(e)) from None
            a.annotate(f"{_PREFIX}failed-open", "true")
            assert a.obj is not None
            a.obj["metadata"].setdefault("annotations", {})[_FAILED_OPEN] = "true"
            return None
        found: Any = answer.get("status")
        said: Obj = found if isinstance(found, dict) else {}
        seconds = self._kept_s[said.get("allowed") is True]
        if seconds:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = said, clock.monotonic() + seconds
        return said


def _seconds(config: Obj, field: str) -> float:
    """-1 is none at all, 0 the default. Raises BadImagePolicy."""
    least_shown, unit, least, most_shown, most, default = _SPANS[field]
    value = config.get(field) or 0
    if value == -1:
        return 0.0
    if not value:
        return default
    seconds = value * unit
    if not least <= seconds <= most:
        raise BadImagePolicy(f"valid value is between {least_shown} and {most_shown}, got {seconds:g}s")
    return float(seconds)
