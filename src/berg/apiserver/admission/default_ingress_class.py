"""DefaultIngressClass: an Ingress that names no class gets the default one.

Source: kubernetes plugin/pkg/admission/network/defaultingressclass.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, Attributes, Plugin
from berg.machinery.resources import resource

_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
_CLASS = "kubernetes.io/ingress.class"


class DefaultIngressClass(Plugin):
    name = "DefaultIngressClass"
    mutating = True
    operations = frozenset({CREATE})
    resources = frozenset({"ingresses.networking.k8s.io"})

    async def admit(self, a: Attributes) -> None:
        if a.obj is None or _CLASS in (a.obj["metadata"].get("annotations") or {}):
            return
        spec = a.obj.setdefault("spec", {})
        if spec.get("ingressClassName") is not None:
            return
        classes = [
            c
            for c in self.api.list(resource("ingressclasses.networking.k8s.io"))
            if (c["metadata"].get("annotations") or {}).get(_DEFAULT) == "true"
        ]
        classes.sort(key=lambda c: c["metadata"]["name"])
        newest = max(classes, key=lambda c: c["metadata"].get("creationTimestamp") or "", default=None)
        if newest is not None:
            spec["ingressClassName"] = newest["metadata"]["name"]
