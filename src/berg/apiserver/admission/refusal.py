"""Refusing a write: `pods "web" is forbidden: …`.

Source: k8s.io/apiserver pkg/admission/errors.go.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import Attributes
from berg.machinery import status
from berg.machinery.status import ApiError


def object_name(a: Attributes) -> str:
    """What messages call the object: its name, its generateName, or Unknown."""
    metadata = (a.obj or {}).get("metadata") or {}
    return a.name or metadata.get("name") or metadata.get("generateName") or "Unknown"


def forbidden(a: Attributes, why: str) -> ApiError:
    return status.forbidden(a.resource.group, a.resource.plural, object_name(a), why)
