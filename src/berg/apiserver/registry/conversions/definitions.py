"""CustomResourceDefinitions of v1beta1: no longer served, but upstream's API server stores them so to this day.

Source: kubernetes apiextensions-apiserver pkg/apis/apiextensions/v1beta1/conversion.go, defaults.go; v1/conversion.go.
"""

from __future__ import annotations

from berg.apiserver.registry.conversion import conversion
from berg.machinery.status import Obj

_OF_A_VERSION = (("validation", "schema"), ("subresources", "subresources"))


@conversion("customresourcedefinitions", "apiextensions.k8s.io/v1beta1", "apiextensions.k8s.io/v1")
def to_v1(obj: Obj) -> None:
    """What once held for all versions stands with each."""
    spec = obj.get("spec") or {}
    only = spec.pop("version", "")
    versions = spec.setdefault("versions", [])
    if only and not versions:
        versions.append({"name": only, "served": True, "storage": True})
    columns = spec.pop("additionalPrinterColumns", None)
    for old, new in _OF_A_VERSION:
        if (shared := spec.pop(old, None)) is not None:
            for version in versions:
                version.setdefault(new, shared)
    for version in versions:
        if columns:
            version.setdefault("additionalPrinterColumns", columns)
        if version.get("additionalPrinterColumns"):
            version["additionalPrinterColumns"] = [_column(c) for c in version["additionalPrinterColumns"]]
    if not spec.setdefault("preserveUnknownFields", True):
        del spec["preserveUnknownFields"]
    if how := spec.get("conversion"):
        webhook = {
            new: how.pop(old)
            for old, new in (("webhookClientConfig", "clientConfig"), ("conversionReviewVersions",) * 2)
            if old in how
        }
        if how.get("strategy") == "Webhook":
            how["webhook"] = webhook


def _column(column: Obj) -> Obj:
    return {"jsonPath" if name == "JSONPath" else name: value for name, value in column.items()}
