"""Server-side apply: a manifest as what its manager wants to own.

Source: k8s.io/apiserver pkg/endpoints/handlers/patch.go (applyPatcher), KEP-555.
"""

from __future__ import annotations

from berg.apiserver.http.message import Request
from berg.apiserver.registry import fieldmanager
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.options import WriteOptions
from berg.apiserver.registry.update import Updated
from berg.apiserver.registry.views import View
from berg.machinery import status


async def apply(request: Request, call: Call, view: View, options: WriteOptions) -> Updated:
    raise status.internal_error(f"apply is not there yet {fieldmanager.__name__}")
