"""The fields of a Service that hang together: defaults by type, what a change of type takes along.

Source: kubernetes pkg/apis/core/v1/defaults.go SetDefaults_Service; pkg/registry/core/service strategy and storage.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.status import Obj

CLIENT_IP_TIMEOUT_S = 10800


def default(obj: Obj) -> None:
    spec = obj["spec"]
    kind = spec.get("type")
    if not kind:
        kind = spec["type"] = "ClusterIP"
    affinity = spec.get("sessionAffinity")
    if not affinity:
        affinity = spec["sessionAffinity"] = "None"
    if affinity == "None":
        spec.pop("sessionAffinityConfig", None)
    elif affinity == "ClientIP":
        config = spec.get("sessionAffinityConfig") or {}
        if (config.get("clientIP") or {}).get("timeoutSeconds") is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": CLIENT_IP_TIMEOUT_S}}
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port")
    if externally_accessible(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec.get("internalTrafficPolicy") is None and kind in ("NodePort", "LoadBalancer", "ClusterIP"):
        spec["internalTrafficPolicy"] = "Cluster"
    if kind == "LoadBalancer":
        if spec.get("allocateLoadBalancerNodePorts") is None:
            spec["allocateLoadBalancerNodePorts"] = True
        for ingress in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if ingress.get("ip") and ingress.get("ipMode") is None:
                ingress["ipMode"] = "VIP"


def externally_accessible(spec: Obj) -> bool:
    kind = spec.get("type")
    return kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def needs_cluster_ip(spec: Obj) -> bool:
    return spec.get("type") != "ExternalName"


def needs_node_port(spec: Obj) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


def needs_health_check_port(spec: Obj) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _same(a: Obj, b: Obj, *keys: str) -> bool:
    return all((a.get(k) or None) == (b.get(k) or None) for k in keys)


def _node_ports(spec: Obj) -> set[int]:
    return {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}


def drop_type_dependent(obj: Obj, old: Obj) -> None:
    """A change of type lets go what was given by the server and does not fit the new type, unless the user changed
    it too (then validation refuses)."""
    spec, before = obj["spec"], old.get("spec") or {}

    def drop(*keys: str) -> None:
        for key in keys:
            spec.pop(key, None)

    if needs_cluster_ip(before) and not needs_cluster_ip(spec):
        if _same(before, spec, "clusterIP", "clusterIPs"):
            drop("clusterIP", "clusterIPs")
        if _same(before, spec, "ipFamilies"):
            drop("ipFamilies")
        if _same(before, spec, "ipFamilyPolicy"):
            drop("ipFamilyPolicy")
    if needs_node_port(before) and not needs_node_port(spec) and _node_ports(before) >= _node_ports(spec):
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)
    if (
        needs_health_check_port(before)
        and not needs_health_check_port(spec)
        and _same(before, spec, "healthCheckNodePort")
    ):
        drop("healthCheckNodePort")
    if before.get("type") == "LoadBalancer" and spec.get("type") != "LoadBalancer":
        if before.get("allocateLoadBalancerNodePorts") == spec.get("allocateLoadBalancerNodePorts"):
            drop("allocateLoadBalancerNodePorts")
        if _same(before, spec, "loadBalancerClass"):
            drop("loadBalancerClass")
    if (
        externally_accessible(before)
        and not externally_accessible(spec)
        and _same(before, spec, "externalTrafficPolicy")
    ):
        drop("externalTrafficPolicy")
    if spec.get("type") == "ExternalName" and before.get("type") != "ExternalName":
        drop("internalTrafficPolicy")
    if spec.get("type") != "LoadBalancer":
        obj["status"] = {**(obj.get("status") or {}), "loadBalancer": {}}


def adopt_allocated(obj: Obj, old: Obj) -> None:
    """What the server gave and the client left out is kept, so that writing a manifest again changes nothing."""
    spec, before = obj["spec"], old.get("spec") or {}
    if needs_cluster_ip(before) and needs_cluster_ip(spec):
        _adopt(spec, before, "clusterIP")
        _adopt(spec, before, "clusterIPs")
    if needs_node_port(before) and needs_node_port(spec):
        used = _node_ports(before) & _node_ports(spec)
        known = {p.get("name") or "": p.get("nodePort") for p in before.get("ports") or ()}
        for port in spec.get("ports") or ():
            if not port.get("nodePort"):
                value = known.get(port.get("name") or "")
                if value and value not in used:
                    port["nodePort"] = value
    if needs_health_check_port(before) and needs_health_check_port(spec):
        _adopt(spec, before, "healthCheckNodePort")


def _adopt(spec: Obj, before: Obj, key: str) -> None:
    if not spec.get(key) and before.get(key):
        value: Any = before[key]
        spec[key] = list(value) if isinstance(value, list) else value


def plural_cluster_ips(obj: Obj, old: Obj | None) -> None:
    """`clusterIP` and `clusterIPs` follow one another where a client knows only the former."""
    spec = obj["spec"]
    if old is None:
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        return
    before = old.get("spec") or {}
    one, was = spec.get("clusterIP") or "", before.get("clusterIP") or ""
    if before.get("clusterIPs") and not spec.get("clusterIPs") and one == was:
        spec["clusterIPs"] = list(before["clusterIPs"])
    if one != was and (spec.get("clusterIPs") or []) == (before.get("clusterIPs") or []):
        if one:
            spec["clusterIPs"] = [one]
        else:
            spec.pop("clusterIPs", None)
