"""LimitPodHardAntiAffinityTopology: a pod may insist on being apart from others on a node, and on nothing wider.

Source: kubernetes plugin/pkg/admission/antiaffinity.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.machinery import status

_NODE = "kubernetes.io/hostname"


class LimitPodHardAntiAffinityTopology(Plugin):
    name = "LimitPodHardAntiAffinityTopology"
    validating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"pods"})

    async def validate(self, a: Attributes) -> None:
        if a.obj is None:
            return
        apart = (a.obj["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
        for term in apart.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
            if (key := term.get("topologyKey") or "") != _NODE:
                where = "affinity.PodAntiAffinity.RequiredDuringScheduling"
                why = f"{where} has TopologyKey {key} but only key {_NODE} is allowed"
                raise status.forbidden("", "pods", a.obj["metadata"].get("name") or "", why)
