"""PodTolerationRestriction: which tolerations a namespace's pods have by default, and which they may have at all, by
annotations of the namespace, else by the plugin's configuration.

Source: kubernetes plugin/pkg/admission/podtolerationrestriction, pkg/util/tolerations.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.apiserver.kinds.core.pod_spec.resources import qos_class
from berg.machinery import status
from berg.machinery.codec import json
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

DEFAULTS = "scheduler.alpha.kubernetes.io/defaultTolerations"
ALLOWED = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
_PRESSED = {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}


class PodTolerationRestriction(Plugin):
    name = "PodTolerationRestriction"
    mutating = True
    validating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"pods"})

    async def admit(self, a: Attributes) -> None:
        if a.obj is None:
            return
        more: list[Obj] = []
        if a.operation == CREATE:
            more += self._said(a, DEFAULTS, "default")[0]
        if qos_class(a.obj) != "BestEffort":
            more.append(dict(_PRESSED))
        if more:
            a.obj["spec"]["tolerations"] = merged([*(a.obj["spec"].get("tolerations") or ()), *more])
        await self.validate(a)

    async def validate(self, a: Attributes) -> None:
        if a.obj is None:
            return
        given: list[Obj] = a.obj["spec"].get("tolerations") or []
        allowed, scope = self._said(a, ALLOWED, "whitelist")
        if allowed and not all(any(covers(wide, one) for wide in allowed) for one in given):
            why = "pod tolerations (possibly merged with namespace default tolerations) conflict with its"
            raise ApiError(500, "", f"{why} {scope} whitelist")

    def _said(self, a: Attributes, annotation: str, field: str) -> tuple[list[Obj], str]:
        """By the namespace, else for the cluster; and which of them. Raises ApiError."""
        namespace = self.api.get(resource("namespaces"), "", a.namespace)
        if namespace is None:
            raise status.not_found("", "namespaces", a.namespace)
        text = (namespace["metadata"].get("annotations") or {}).get(annotation)
        if text is None:
            return list(self.config.get(field) or ()), "cluster"
        try:
            found = json.loads(text.encode()) if text else []
        except ValueError as e:
            raise ApiError(500, "", str(e)) from None
        return (found if isinstance(found, list) else []), "namespace"


def merged(tolerations: Sequence[Obj]) -> list[Obj]:
    """Without those that another covers. Of equal ones the first stays."""
    kept: list[Obj] = []
    for i, one in enumerate(tolerations):
        if any(covers(wide, one) for wide in kept):
            continue
        if any(one != wide and covers(wide, one) for wide in tolerations[i + 1 :]):
            continue
        kept.append(one)
    return kept


def covers(wide: Obj, one: Obj) -> bool:
    """Whether `wide` tolerates all that `one` does."""
    if wide == one:
        return True
    operator = wide.get("operator") or ""
    if one.get("key", "") != wide.get("key", "") and (wide.get("key") or operator != "Exists"):
        return False
    if wide.get("effect") and one.get("effect") != wide["effect"]:
        return False
    longest = wide.get("tolerationSeconds")
    if wide.get("effect") == "NoExecute" and longest is not None:
        seconds = one.get("tolerationSeconds")
        if seconds is None or seconds > longest:
            return False
    if operator == "Exists":
        return True
    equal = one.get("operator") == "Equal" and one.get("value", "") == wide.get("value", "")
    return operator in ("Equal", "") and equal
