"""Dynamic resource allocation: v1beta1 has an exact request flat in the request, and a device's body under `basic`.

Source: kubernetes pkg/apis/resource/v1beta1/conversion.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from berg.apiserver.registry.conversion import conversion
from berg.machinery.status import Obj

_EXACT = ("deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity")


def _claim(obj: Obj) -> Obj | None:
    return obj.get("spec")


def _template(obj: Obj) -> Obj | None:
    return (obj.get("spec") or {}).get("spec")


def _requests(spec: Obj | None) -> Iterable[Obj]:
    return ((spec or {}).get("devices") or {}).get("requests") or ()


def _nest(spec: Obj | None) -> None:
    for request in _requests(spec):
        exactly = {key: request.pop(key) for key in _EXACT if key in request}
        if any(value not in (None, "", 0) or value is False for value in exactly.values()):
            if not exactly.setdefault("deviceClassName", ""):
                exactly.setdefault("allocationMode", "")  # v1beta1 has no default for one that names no class
            request["exactly"] = exactly


def _flatten(spec: Obj | None) -> None:
    for request in _requests(spec):
        request.update({"deviceClassName": ""} | (request.pop("exactly", None) or {}))


def _register(plural: str, spec_of: Callable[[Obj], Obj | None]) -> None:
    for other in ("v1", "v1beta2"):
        there, here = f"resource.k8s.io/{other}", "resource.k8s.io/v1beta1"
        conversion(plural, here, there)(lambda obj: _nest(spec_of(obj)))
        conversion(plural, there, here)(lambda obj: _flatten(spec_of(obj)))


_register("resourceclaims", _claim)
_register("resourceclaimtemplates", _template)


@conversion("resourceslices", "resource.k8s.io/v1beta1", "resource.k8s.io/v1")
@conversion("resourceslices", "resource.k8s.io/v1beta1", "resource.k8s.io/v1beta2")
def _devices_bare(obj: Obj) -> None:
    for device in (obj.get("spec") or {}).get("devices") or ():
        device.update(device.pop("basic", None) or {})


@conversion("resourceslices", "resource.k8s.io/v1", "resource.k8s.io/v1beta1")
@conversion("resourceslices", "resource.k8s.io/v1beta2", "resource.k8s.io/v1beta1")
def _devices_basic(obj: Obj) -> None:
    for device in (obj.get("spec") or {}).get("devices") or ():
        basic = {key: device.pop(key) for key in list(device) if key != "name"}
        device["basic"] = basic
