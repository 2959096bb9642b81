"""Nodes.

Source: kubernetes pkg/registry/core/node/strategy.go, pkg/apis/core/validation ValidateNode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.pod_spec.resources import canonical_list
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj

ROLE_PREFIX = "node-role.kubernetes.io/"


def _status(node: Obj) -> str:
    ready = cells.condition(node, "Ready")
    words = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
    if (node.get("spec") or {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles(node: Obj) -> str:
    roles = set()
    for label, value in (node["metadata"].get("labels") or {}).items():
        if label.startswith(ROLE_PREFIX):
            roles.add(label.removeprefix(ROLE_PREFIX))
        elif label == "kubernetes.io/role":
            roles.add(value)
    return ",".join(sorted(roles - {""})) or "<none>"


def _address(kind: str) -> Callable[[Obj], str]:
    def value(node: Obj) -> str:
        for a in (node.get("status") or {}).get("addresses") or ():
            if a.get("type") == kind:
                return str(a.get("address"))
        return "<none>"

    return value


def _info(node: Obj, key: str) -> str:
    return ((node.get("status") or {}).get("nodeInfo") or {}).get(key) or ""


def _kernel(node: Obj) -> str:
    kernel = _info(node, "kernelVersion") or "<unknown>"
    architecture = _info(node, "architecture")
    return f"{kernel} ({architecture})" if architecture else kernel


@strategy_for("", "nodes")
class NodeStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    namespaced = False
    generation = False
    status_on_create = True
    field_labels = ("spec.unschedulable",)
    columns = [
        cells.NAME,
        Column("Status", _status),
        Column("Roles", _roles),
        cells.AGE,
        Column("Version", lambda n: _info(n, "kubeletVersion")),
        Column("Internal-IP", _address("InternalIP"), priority=1),
        Column("External-IP", _address("ExternalIP"), priority=1),
        Column("OS-Image", lambda n: _info(n, "osImage") or "<unknown>", priority=1),
        Column("Kernel-Version", _kernel, priority=1),
        Column("Container-Runtime", lambda n: _info(n, "containerRuntimeVersion") or "<unknown>", priority=1),
    ]

    def default(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec is None:
            spec = obj["spec"] = {}
        one, cidrs = spec.get("podCIDR"), spec.get("podCIDRs")
        if one and (not cidrs or cidrs[0] != one):
            spec["podCIDRs"] = [one]
        elif cidrs and not one and cidrs[0]:
            spec["podCIDR"] = cidrs[0]
        if not (status := obj.get("status")):
            return
        capacity, allocatable = status.get("capacity"), status.get("allocatable")
        if capacity:
            canonical_list(capacity)
            if allocatable is None:
                status["allocatable"] = dict(capacity)
        if allocatable:
            canonical_list(allocatable)

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["spec"].pop("configSource", None)
        status = obj.get("status")
        if status is None:
            status = obj["status"] = {}
        status.pop("config", None)
        status.setdefault("daemonEndpoints", {"kubeletEndpoint": {"Port": 0}})
        info: Obj | None = status.get("nodeInfo")
        if info is None:
            info = status["nodeInfo"] = {}
        for key in _INFO:
            info.setdefault(key, "")

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        if not (old.get("spec") or {}).get("configSource"):
            obj["spec"].pop("configSource", None)

    def prepare_status_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        if not (old.get("status") or {}).get("config") and obj.get("status"):
            obj["status"].pop("config", None)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds.core.node_validation import node_warnings

        return node_warnings(obj)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.node_validation import validate_node

        return validate_node(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return self.validate(ctx, obj) + self.validate_status_update(ctx, obj, old)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.node_validation import validate_node_update

        return validate_node_update(obj, old)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"spec.unschedulable": "true" if (obj.get("spec") or {}).get("unschedulable") else "false"}


_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)
"""written even when empty"""
