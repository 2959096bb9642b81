"""Whether a Service is sound.

Source: kubernetes pkg/apis/core/validation validateService, pkg/api/service/warnings.go.
"""

from __future__ import annotations

import ipaddress

from berg.apiserver.kinds import addresses, checks
from berg.apiserver.kinds.core.service_fields import externally_accessible, needs_health_check_port
from berg.apiserver.kinds.label_selectors import validate_labels
from berg.machinery import names
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)

HINTS, MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
TYPES = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
NOT_LOAD_BALANCER = "may only be used when `type` is 'LoadBalancer'"
ONCE = "may not change once set"


def is_headless(spec: Obj) -> bool:
    return (spec.get("clusterIPs") or [spec.get("clusterIP")])[0] == "None"


def validate_service(obj: Obj, old: Obj | None = None) -> list[FieldError]:
    spec, before = obj.get("spec") or {}, (old or {}).get("spec") or {}
    annotations = obj["metadata"].get("annotations") or {}
    kind, ports = spec.get("type") or "", spec.get("ports") or []
    errors: list[FieldError] = []
    if HINTS in annotations and MODE in annotations and annotations[HINTS] != annotations[MODE]:
        why = f"must match annotations[{HINTS}] when both are specified"
        errors.append(invalid_value(f"metadata.annotations[{MODE}]", annotations[MODE], why))
    headless = is_headless(spec)
    if not ports and not headless and kind != "ExternalName":
        errors.append(required("spec.ports"))
    if headless and kind in ("LoadBalancer", "NodePort"):
        errors.append(invalid_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    if kind == "ExternalName":
        errors += _external_name(spec)
    errors += _ports(ports, kind)
    errors += validate_labels(spec.get("selector"), "spec.selector")
    errors += checks.one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ["ClientIP", "None"])
    errors += _affinity_config(spec)
    errors += cluster_ips(spec, before)
    for i, ip in enumerate(spec.get("externalIPs") or ()):
        at = f"spec.externalIPs[{i}]"
        errors += addresses.legacy_ip(at, ip, before.get("externalIPs") or ()) or endpoint_ip(at, ip)
    errors += checks.one_of("spec.type", kind, TYPES)
    errors += _duplicates(ports) + _load_balancer(obj, spec, old)
    errors += _traffic(spec, kind)
    return errors


def _external_name(spec: Obj) -> list[FieldError]:
    errors = [
        forbidden_field(f"spec.{key}", "may not be set for ExternalName services")
        for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy")
        if spec.get(key) or (key == "ipFamilyPolicy" and spec.get(key) is not None)
    ]
    return errors + checks.required_name("spec.externalName", (spec.get("externalName") or "").removesuffix("."))


def _ports(ports: list[Obj], kind: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, p in enumerate(ports):
        at, name = f"spec.ports[{i}]", p.get("name") or ""
        if len(ports) > 1 and not name:
            errors.append(required(f"{at}.name"))
        elif name:
            errors += checks.named(f"{at}.name", name, names.dns1123_label)
            if name in seen:
                errors.append(duplicate(f"{at}.name", name))
            seen.add(name)
        errors += checks.port_number(f"{at}.port", p.get("port") or 0)
        errors += checks.one_of(f"{at}.protocol", p.get("protocol"), ["SCTP", "TCP", "UDP"])
        errors += checks.port(f"{at}.targetPort", p.get("targetPort"))
        if (protocol := p.get("appProtocol")) is not None:
            errors += checks.named(f"{at}.appProtocol", protocol, names.qualified_name)
    if kind == "ClusterIP":
        errors += [
            forbidden_field(f"spec.ports[{i}].nodePort", "may not be used when `type` is 'ClusterIP'")
            for i, p in enumerate(ports)
            if p.get("nodePort")
        ]
    return errors


def _duplicates(ports: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    nodes: set[tuple[str, int]] = set()
    numbers: set[tuple[str, int]] = set()
    for i, p in enumerate(ports):
        protocol = p.get("protocol") or ""
        if node := p.get("nodePort"):
            if (protocol, node) in nodes:
                errors.append(duplicate(f"spec.ports[{i}].nodePort", node))
            nodes.add((protocol, node))
    for i, p in enumerate(ports):
        key = (p.get("protocol") or "", p.get("port") or 0)
        if key in numbers:
            shown = {
                "Name": "",
                "Protocol": key[0],
                "AppProtocol": None,
                "Port": key[1],
                "TargetPort": 0,
                "NodePort": 0,
            }
            errors.append(duplicate(f"spec.ports[{i}]", shown))
        numbers.add(key)
    return errors


def _affinity_config(spec: Obj) -> list[FieldError]:
    config, at = spec.get("sessionAffinityConfig"), "spec.sessionAffinityConfig"
    if spec.get("sessionAffinity") == "None":
        if config is None:
            return []
        return [forbidden_field(at, "must not be set when session affinity is None")]
    if spec.get("sessionAffinity") != "ClientIP":
        return []
    seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
    if seconds is None:
        return [required(at, "when session affinity type is ClientIP")]
    if 0 < seconds <= 86400:
        return []
    why = "must be greater than 0 and less than 86400"
    return [invalid_value(f"{at}.clientIP.timeoutSeconds", seconds, why)]


def endpoint_ip(path: str, text: str) -> list[FieldError]:
    """Addresses that only mean something on one machine can't be endpoints."""
    ip = addresses.parse_ip(text)
    if ip is None:
        return [invalid_value(path, text, "must be a valid IP address")]
    for wrong, words in (
        (ip.is_unspecified, f"may not be unspecified ({text})"),
        (ip.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (ip.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            ip.is_multicast and (ip in _LINK_LOCAL_MULTICAST_4 if ip.version == 4 else ip in _LINK_LOCAL_MULTICAST_6),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ):
        if wrong:
            return [invalid_value(path, text, words)]
    return []


_LINK_LOCAL_MULTICAST_4 = ipaddress.ip_network("224.0.0.0/24")
_LINK_LOCAL_MULTICAST_6 = ipaddress.ip_network("ff02::/16")


def cluster_ips(spec: Obj, before: Obj) -> list[FieldError]:
    if spec.get("type") == "ExternalName":
        return []
    one, ips, families = spec.get("clusterIP") or "", spec.get("clusterIPs") or [], spec.get("ipFamilies") or []
    at = "spec.clusterIPs"
    errors: list[FieldError] = []
    if one:
        if not ips:
            errors.append(required(at))
        elif ips[0] != one:
            errors.append(invalid_value(at, ips, "first value must match `clusterIP`"))
    elif ips:
        errors.append(invalid_value(at, ips, "must be empty when `clusterIP` is not specified"))
    for i, family in enumerate(families):
        if family not in ("IPv4", "IPv6"):
            errors.append(not_supported(f"spec.ipFamilies[{i}]", family, ["IPv4", "IPv6"]))
        if family in families[:i]:
            errors.append(duplicate(f"spec.ipFamilies[{i}]", family))
    if (policy := spec.get("ipFamilyPolicy")) is not None:
        supported = ["PreferDualStack", "RequireDualStack", "SingleStack"]
        if policy not in supported:
            errors.append(not_supported("spec.ipFamilyPolicy", policy, supported))
    bad: list[FieldError] = []
    for i, ip in enumerate(ips):
        if i == 0 and ip == "None":
            if len(ips) > 1:
                bad.append(invalid_value(at, ips, "'None' must be the first and only value"))
            continue
        bad += addresses.legacy_ip(f"{at}[{i}]", ip, before.get("clusterIPs") or ())
    errors += bad
    if len(ips) > 2:
        errors.append(invalid_value(at, ips, "may only hold up to 2 values"))
    if bad:
        return errors
    if len(ips) > 1 and len({":" in ip for ip in ips}) < 2:
        errors.append(invalid_value(at, ips, "may specify no more than one IP for each IP family"))
    if not is_headless(spec):
        for i, (ip, family) in enumerate(zip(ips, families, strict=False)):
            if ip and (family == "IPv6") != (":" in ip) and family in ("IPv4", "IPv6"):
                why = f"expected an {family} value as indicated by `ipFamilies[{i}]`"
                errors.append(invalid_value(f"{at}[{i}]", ip, why))
    return errors


def _load_balancer(obj: Obj, spec: Obj, old: Obj | None) -> list[FieldError]:
    errors: list[FieldError] = []
    balanced = spec.get("type") == "LoadBalancer"
    ranges = spec.get("loadBalancerSourceRanges") or []
    annotations = obj["metadata"].get("annotations") or {}
    known_annotations = ((old or {}).get("metadata") or {}).get("annotations") or {}
    if ranges:
        at = "spec.LoadBalancerSourceRanges"
        if not balanced:
            errors.append(forbidden_field(at, NOT_LOAD_BALANCER))
        known = [r.strip() for r in ((old or {}).get("spec") or {}).get("loadBalancerSourceRanges") or ()]
        for i, cidr in enumerate(ranges):
            errors += addresses.legacy_cidr(f"{at}[{i}]", cidr.strip(), known)
    elif SOURCE_RANGES in annotations:
        at = f"metadata.annotations[{SOURCE_RANGES}]"
        if not balanced:
            errors.append(forbidden_field(at, NOT_LOAD_BALANCER))
        text = annotations[SOURCE_RANGES]
        if text.strip() and known_annotations.get(SOURCE_RANGES) != text:
            errors += [e for cidr in text.split(",") for e in addresses.legacy_cidr(at, cidr.strip())]
    if spec.get("allocateLoadBalancerNodePorts") is not None and not balanced:
        errors.append(forbidden_field("spec.allocateLoadBalancerNodePorts", NOT_LOAD_BALANCER))
    if balanced and spec.get("allocateLoadBalancerNodePorts") is None:
        errors.append(required("allocateLoadBalancerNodePorts"))
    return errors + _load_balancer_class(spec)


def _load_balancer_class(spec: Obj) -> list[FieldError]:
    name = spec.get("loadBalancerClass")
    if name is None:
        return []
    if spec.get("type") == "LoadBalancer":
        return checks.named("spec.loadBalancerClass", name, names.qualified_name)
    return [forbidden_field("spec.loadBalancerClass", NOT_LOAD_BALANCER)]


def _traffic(spec: Obj, kind: str) -> list[FieldError]:
    errors: list[FieldError] = []
    external, at = spec.get("externalTrafficPolicy") or "", "spec.externalTrafficPolicy"
    if externally_accessible(spec):
        errors += checks.one_of(at, external, ["Cluster", "Local"])
    elif external:
        errors.append(invalid_value(at, external, "may only be set for externally-accessible services"))
    port = spec.get("healthCheckNodePort") or 0
    if needs_health_check_port(spec):
        if port:
            errors += checks.port_number("spec.healthCheckNodePort", port)
        else:
            errors.append(required("spec.healthCheckNodePort"))
    elif port:
        why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(invalid_value("spec.healthCheckNodePort", port, why))
    internal = spec.get("internalTrafficPolicy")
    if internal is None:
        if kind in ("NodePort", "LoadBalancer", "ClusterIP"):
            errors.append(required("spec.internalTrafficPolicy"))
    elif internal not in ("Cluster", "Local"):
        errors.append(not_supported("spec.internalTrafficPolicy", internal, ["Cluster", "Local"]))
    distribution = spec.get("trafficDistribution")
    supported = ["PreferClose", "PreferSameZone", "PreferSameNode"]
    if distribution is not None and distribution not in supported:
        errors.append(not_supported("spec.trafficDistribution", distribution, supported))
    return errors


def validate_service_update(obj: Obj, old: Obj) -> list[FieldError]:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    errors: list[FieldError] = []
    if "ExternalName" not in (spec.get("type"), before.get("type")):
        errors += _kept_addresses(spec, before)
    if spec.get("type") == before.get("type") == "LoadBalancer":
        name = spec.get("loadBalancerClass")
        if name != before.get("loadBalancerClass"):
            errors.append(invalid_value("spec.loadBalancerClass", name, ONCE))
    errors += _load_balancer_class(spec)
    checked = needs_health_check_port(spec) and needs_health_check_port(before)
    if checked and spec.get("healthCheckNodePort") != before.get("healthCheckNodePort"):
        errors.append(forbidden_field("spec.healthCheckNodePort", "field is immutable"))
    return errors + validate_service(obj, old)


def validate_service_status(obj: Obj, old: Obj) -> list[FieldError]:
    at = "status.loadBalancer.ingress"
    given = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    if given and (obj.get("spec") or {}).get("type") != "LoadBalancer":
        return [forbidden_field(at, "may only be used when `spec.type` is 'LoadBalancer'")]
    before = ((old.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    known = [i["ip"] for i in before if i.get("ip")]
    errors: list[FieldError] = []
    for i, ingress in enumerate(given):
        ip, mode, host = ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname")
        if ip:
            errors += addresses.legacy_ip(f"{at}[{i}].ip", ip, known)
        if mode is None:
            errors += [required(f"{at}[{i}].ipMode", "must be specified when `ip` is set")] if ip else []
        elif not ip:
            errors.append(forbidden_field(f"{at}[{i}].ipMode", "may not be specified when `ip` is not set"))
        else:
            errors += checks.one_of(f"{at}[{i}].ipMode", mode, ["Proxy", "VIP"], empty=None)
        if host:
            errors += checks.named(f"{at}[{i}].hostname", host)
            if addresses.parse_ip(host) is not None:
                why = "must be a DNS name, not an IP address"
                errors.append(invalid_value(f"{at}[{i}].hostname", host, why))
    return errors


def _kept_addresses(spec: Obj, before: Obj) -> list[FieldError]:
    """The primary address never changes; a second one may be added, and dropped on purpose."""
    errors: list[FieldError] = []
    headless = is_headless(spec), is_headless(before)
    for key, noun in (("clusterIPs", "clusterIP"), ("ipFamilies", "ipFamily")):
        if all(headless) or (key == "ipFamilies" and any(headless)):
            continue
        new, was = spec.get(key) or [], before.get(key) or []
        at = f"spec.{key}"
        if len(new) == len(was):
            errors += [
                invalid_value(f"{at}[{i if key == 'clusterIPs' else 0}]", new, ONCE)
                for i, value in enumerate(was)
                if value != new[i]
            ]
            continue
        if len(new) < len(was) and not new:
            errors.append(invalid_value(f"{at}[0]", new, f"primary {noun} can not be unset"))
        if new and was and new[0] != was[0]:
            errors.append(invalid_value(f"{at}[0]", new, ONCE))
        if len(was) > len(new) == 1 and spec.get("ipFamilyPolicy") != "SingleStack":
            why = f"must be set to 'SingleStack' when releasing the secondary {noun}"
            errors.append(invalid_value("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), why))
    return errors


def service_warnings(obj: Obj, old: Obj | None) -> list[str]:
    spec, annotations = obj.get("spec") or {}, obj["metadata"].get("annotations") or {}
    found: list[str] = []
    external, kind = spec.get("externalIPs") or [], spec.get("type")
    if HINTS in annotations:
        found.append(f"annotation {HINTS} is deprecated, please use {MODE} instead")
    headless = kind == "ClusterIP" and spec.get("clusterIP") == "None"
    if headless:
        if spec.get("loadBalancerIP"):
            found.append("spec.loadBalancerIP is ignored for headless services")
        if external:
            found.append("spec.externalIPs is ignored for headless services")
        if spec.get("sessionAffinity") != "None":
            found.append("spec.SessionAffinity is ignored for headless services")
    else:
        for i, ip in enumerate(spec.get("clusterIPs") or ()):
            found += addresses.ip_warnings(f"spec.clusterIPs[{i}]", ip)
    for i, ip in enumerate(external):
        found += addresses.ip_warnings(f"spec.externalIPs[{i}]", ip)
    if external and not headless and kind != "ExternalName":
        found.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if ip := spec.get("loadBalancerIP"):
        found += addresses.ip_warnings("spec.loadBalancerIP", ip)
    for i, cidr in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        found += addresses.cidr_warnings(f"spec.loadBalancerSourceRanges[{i}]", cidr)
    if kind == "ExternalName" and external:
        found.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != "ExternalName" and spec.get("externalName"):
        found.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        found.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return found
