"""PodNodeSelector: a namespace's pods only run on the nodes that its annotation names.

Source: kubernetes plugin/pkg/admission/podnodeselector.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

ANNOTATION = "scheduler.alpha.kubernetes.io/node-selector"
DEFAULT = "clusterDefaultNodeSelector"


def parse(text: str) -> dict[str, str]:
    """`a=b,c=d`. Raises ValueError."""
    found: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"invalid selector: [{part}]")
        found[key.strip()] = value.lstrip("=").strip()
    return found


class PodNodeSelector(Plugin):
    name = "PodNodeSelector"
    mutating = True
    validating = True
    operations = frozenset({CREATE})
    resources = frozenset({"pods"})

    def _wanted(self, a: Attributes) -> dict[str, str]:
        namespace = self.api.get(resource("namespaces"), "", a.namespace) or {}
        annotations: Obj = (namespace.get("metadata") or {}).get("annotations") or {}
        config = self.config.get("podNodeSelectorPluginConfig") or {}
        try:
            return parse(annotations.get(ANNOTATION) or config.get(DEFAULT) or "")
        except ValueError as e:
            raise ApiError(500, "", str(e)) from None

    async def admit(self, a: Attributes) -> None:
        if a.obj is None:
            return
        wanted, given = self._wanted(a), a.obj["spec"].get("nodeSelector") or {}
        if any(given.get(k, v) != v for k, v in wanted.items()):
            raise forbidden(a, "pod node label selector conflicts with its namespace node label selector")
        if wanted:
            a.obj["spec"]["nodeSelector"] = {**wanted, **given}
        await self.validate(a)

    async def validate(self, a: Attributes) -> None:
        if a.obj is None:
            return
        wanted, given = self._wanted(a), a.obj["spec"].get("nodeSelector") or {}
        if any(given.get(k, v) != v for k, v in wanted.items()):
            raise forbidden(a, "pod node label selector conflicts with its namespace node label selector")
        config = self.config.get("podNodeSelectorPluginConfig") or {}
        allowed = parse(config.get(a.namespace) or "")
        if allowed and any(allowed.get(k) != v for k, v in {**wanted, **given}.items()):
            raise forbidden(a, "pod node label selector labels conflict with its namespace whitelist")
