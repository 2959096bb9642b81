"""DefaultTolerationSeconds: pods stay five minutes on a node that is lost. ExtendedResourceToleration: pods that ask
for an extended resource tolerate the taint named like it.

Source: kubernetes plugin/pkg/admission/defaulttolerationseconds, extendedresourcetoleration.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.machinery.status import Obj

SECONDS = 300
_TAINTS = {"node.kubernetes.io/not-ready": "notReady", "node.kubernetes.io/unreachable": "unreachable"}


class DefaultTolerationSeconds(Plugin):
    name = "DefaultTolerationSeconds"
    mutating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"pods"})

    async def admit(self, a: Attributes) -> None:
        if a.obj is None:
            return
        spec = a.obj["spec"]
        given: list[Obj] = spec.get("tolerations") or []
        missing = [
            {
                "key": taint,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": self.config.get(which, SECONDS),
            }
            for taint, which in _TAINTS.items()
            if not any(
                (t.get("key") or taint) == taint and (t.get("effect") or "NoExecute") == "NoExecute" for t in given
            )
        ]
        if missing:
            spec["tolerations"] = [*given, *missing]


class ExtendedResourceToleration(Plugin):
    name = "ExtendedResourceToleration"
    mutating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"pods"})

    async def admit(self, a: Attributes) -> None:
        if a.obj is None:
            return
        spec = a.obj["spec"]
        wanted: set[str] = set()
        for c in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
            wanted.update(r for r in (c.get("resources") or {}).get("requests") or () if is_extended(r))
        tolerations = list(spec.get("tolerations") or ())
        for name in sorted(wanted):
            toleration = {"key": name, "operator": "Exists", "effect": "NoSchedule"}
            if toleration not in tolerations:
                tolerations.append(toleration)
        if tolerations:
            spec["tolerations"] = tolerations


def is_extended(name: str) -> bool:
    """A resource outside kubernetes.io, as devices are."""
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")
