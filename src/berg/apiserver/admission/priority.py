"""Priority: a pod's PriorityClass becomes its number; one class at most is the default.

Source: kubernetes plugin/pkg/admission/priority.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.machinery.resources import resource
from berg.machinery.status import Obj

_CLASSES = "priorityclasses.scheduling.k8s.io"


class Priority(Plugin):
    name = "Priority"
    mutating = True
    validating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"pods", _CLASSES})

    def _default_class(self) -> Obj | None:
        defaults = [c for c in self.api.list(resource(_CLASSES)) if c.get("globalDefault")]
        return min(defaults, key=lambda c: c.get("value") or 0, default=None)

    async def admit(self, a: Attributes) -> None:
        if a.resource.plural != "pods" or a.obj is None:
            return
        spec = a.obj["spec"]
        if a.operation == UPDATE:
            before = (a.old or {}).get("spec") or {}
            for key in ("priority", "preemptionPolicy"):
                if spec.get(key) is None and before.get(key) is not None:
                    spec[key] = before[key]
            return
        if name := spec.get("priorityClassName"):
            found = self.api.get(resource(_CLASSES), "", name)
            if found is None:
                raise forbidden(a, f"no PriorityClass with name {name} was found")
        else:
            found = self._default_class()
            if found is not None:
                spec["priorityClassName"] = found["metadata"]["name"]
        priority = (found or {}).get("value") or 0
        policy = found.get("preemptionPolicy") if found else "PreemptLowerPriority"
        given = spec.get("priority")
        if given is not None and given != priority:
            raise forbidden(
                a,
                f"the integer value of priority ({given}) must not be provided in pod spec; priority admission "
                f"controller computed {priority} from the given PriorityClass name",
            )
        spec["priority"] = priority
        if policy is not None:
            wanted = spec.get("preemptionPolicy")
            if wanted is not None and wanted != policy:
                raise forbidden(
                    a,
                    f"the string value of PreemptionPolicy ({wanted}) must not be provided in pod spec; priority "
                    f"admission controller computed {policy} from the given PriorityClass name",
                )
            spec["preemptionPolicy"] = policy

    async def validate(self, a: Attributes) -> None:
        if a.resource.plural != "priorityclasses" or a.obj is None or not a.obj.get("globalDefault"):
            return
        known = self._default_class()
        if known is None:
            return
        name = known["metadata"]["name"]
        if a.operation == CREATE or name != a.obj["metadata"].get("name"):
            raise forbidden(a, f"PriorityClass {name} is already marked as default. Only one default can exist")
