"""PodResizeValidator: a pod on a node is not resized beyond what the node has, nor where nodes cannot do it.

Source: kubernetes plugin/pkg/admission/podresize.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.apiserver.kinds.core.pod_spec.resources import pod_requests
from berg.machinery import quantity
from berg.machinery.resources import resource
from berg.machinery.status import ApiError

_SYSTEM = "kubernetes.io/os"


class PodResizeValidator(Plugin):
    name = "PodResizeValidator"
    validating = True
    operations = frozenset({UPDATE})
    resources = frozenset({"pods"})
    subresources = frozenset({"resize"})

    async def validate(self, a: Attributes) -> None:
        if a.obj is None or a.old is None or not (where := a.obj["spec"].get("nodeName")):
            return
        if a.obj["metadata"].get("generation") == a.old["metadata"].get("generation"):
            return
        node = self.api.get(resource("nodes"), "", where)
        if node is None:
            raise forbidden(a, f'node "{where}" not found')
        system = (node["metadata"].get("labels") or {}).get(_SYSTEM, "linux")
        if system != "linux":
            why = f'pod resize is only supported on linux nodes, node "{where}" is "{system}"'
            raise _refusal(a, why, "UnsupportedPlatform")
        there, wanted = (node.get("status") or {}).get("allocatable") or {}, pod_requests(a.obj["spec"])
        short = []
        for name in ("cpu", "memory"):
            asked, has = wanted.get(name, quantity.from_value(0)), quantity.of(there.get(name) or "0")
            if asked.nano > has.nano:
                counts = (asked.milli(), has.milli()) if name == "cpu" else (asked.value(), has.value())
                short.append(f"{name}, requested: {counts[0]}, allocatable: {counts[1]}")
        if short:
            raise _refusal(a, f"node didn't have enough allocatable resources: {'; '.join(short)}", "NodeCapacity")


def _refusal(a: Attributes, why: str, reason: str) -> ApiError:
    error = forbidden(a, why)
    error.details = {**(error.details or {}), "causes": [{"reason": reason}]}
    return error
