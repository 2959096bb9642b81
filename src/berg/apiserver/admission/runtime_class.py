"""RuntimeClass: a pod takes over its class's overhead, node selector and tolerations.

Source: kubernetes plugin/pkg/admission/runtimeclass.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.apiserver.kinds.core.pod_spec.resources import parsed
from berg.machinery import names
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

MISMATCH = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"


def _same(a: Obj | None, b: Obj | None) -> bool:
    left, right = parsed(a), parsed(b)
    return left.keys() == right.keys() and all(right[k].same(v) for k, v in left.items())


class RuntimeClass(Plugin):
    name = "RuntimeClass"
    mutating = True
    validating = True
    operations = frozenset({CREATE})
    resources = frozenset({"pods"})

    def _class(self, a: Attributes, spec: Obj) -> Obj | None:
        name = spec.get("runtimeClassName")
        if name is None:
            return None
        if not name:
            raise ApiError(500, "", "resource name may not be empty")
        if faults := names.path_segment(name):
            raise ApiError(500, "", f'invalid resource name "{name}": [{" ".join(faults)}]')
        found = self.api.get(resource("runtimeclasses.node.k8s.io"), "", name)
        if found is None:
            raise forbidden(a, f'pod rejected: RuntimeClass "{name}" not found')
        return found

    async def admit(self, a: Attributes) -> None:
        if a.obj is None:
            return
        spec = a.obj["spec"]
        found = self._class(a, spec)
        if found is None:
            return
        if overhead := found.get("overhead"):
            fixed = overhead.get("podFixed") or {}
            if spec.get("overhead") and not _same(spec["overhead"], fixed):
                raise forbidden(a, MISMATCH)
            spec["overhead"] = dict(fixed)
        if scheduling := found.get("scheduling"):
            selector = dict(spec.get("nodeSelector") or {})
            for key, value in (scheduling.get("nodeSelector") or {}).items():
                if selector.get(key, value) != value:
                    raise forbidden(
                        a,
                        f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                        f"pod.spec.nodeSelector[{key}] = {selector[key]}",
                    )
                selector[key] = value
            if selector:
                spec["nodeSelector"] = selector
            given = list(spec.get("tolerations") or ())
            given += [t for t in scheduling.get("tolerations") or () if t not in given]
            if given:
                spec["tolerations"] = given

    async def validate(self, a: Attributes) -> None:
        if a.obj is None:
            return
        spec = a.obj["spec"]
        found = self._class(a, spec)
        overhead = (found or {}).get("overhead")
        if overhead is not None:
            if not _same(overhead.get("podFixed"), spec.get("overhead")):
                raise forbidden(a, MISMATCH)
        elif spec.get("overhead"):
            raise forbidden(a, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
