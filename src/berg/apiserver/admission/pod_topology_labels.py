"""PodTopologyLabels: a pod that is bound takes its node's zone and region as labels.

Source: KEP-4742; kubernetes plugin/pkg/admission/podtopologylabels.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, Attributes, Plugin
from berg.machinery.resources import resource
from berg.machinery.status import Obj

LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


class PodTopologyLabels(Plugin):
    name = "PodTopologyLabels"
    mutating = True
    operations = frozenset({CREATE})
    resources = frozenset({"pods"})
    subresources = frozenset({"", "binding"})

    async def admit(self, a: Attributes) -> None:
        """Of a pod: that names its node at once. Of a Binding: its labels are passed on to the pod."""
        if a.obj is None:
            return
        if a.subresource == "binding":
            name = (a.obj.get("target") or {}).get("name") or ""
        else:
            name = (a.obj.get("spec") or {}).get("nodeName") or ""
        node = self.api.get(resource("nodes"), "", name) if name else None
        if node is None:
            return
        known: Obj = node["metadata"].get("labels") or {}
        labels = {k: known[k] for k in LABELS if k in known}
        if labels:
            metadata = a.obj.setdefault("metadata", {})
            metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
