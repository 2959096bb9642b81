"""TaintNodesByCondition: a new node is tainted not-ready until the node controller sees that it is ready.

Source: kubernetes plugin/pkg/admission/nodetaint.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, Attributes, Plugin

TAINT = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


class TaintNodesByCondition(Plugin):
    name = "TaintNodesByCondition"
    mutating = True
    operations = frozenset({CREATE})
    resources = frozenset({"nodes"})

    async def admit(self, a: Attributes) -> None:
        if a.obj is None:
            return
        spec = a.obj.setdefault("spec", {})
        taints = spec.get("taints") or []
        if not any(t.get("key") == TAINT["key"] and t.get("effect") == TAINT["effect"] for t in taints):
            spec["taints"] = [*taints, dict(TAINT)]
