"""Bindings of admission policies: v1alpha1 has a default for what happens without the parameters.

Source: kubernetes pkg/apis/admissionregistration/v1alpha1/defaults.go.
"""

from __future__ import annotations

from berg.apiserver.registry.conversion import conversion
from berg.machinery.status import Obj


def _default_action(obj: Obj) -> None:
    ref = (obj.get("spec") or {}).get("paramRef")
    if ref is not None and ref.get("parameterNotFoundAction") is None:
        ref["parameterNotFoundAction"] = "Deny"


for _version in ("v1", "v1beta1"):
    conversion(
        "mutatingadmissionpolicybindings",
        "admissionregistration.k8s.io/v1alpha1",
        f"admissionregistration.k8s.io/{_version}",
    )(_default_action)
