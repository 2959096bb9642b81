"""Giving a Service its IP families, cluster IPs and node ports when it is written.

Everything is reserved before the object is stored; the function that `begin` returns keeps it, or gives it back.

Source: kubernetes pkg/registry/core/service/storage/alloc.go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from berg.apiserver.kinds import addresses
from berg.apiserver.kinds.core.service_allocation import (
    NotAllocatable,
    RangeFull,
    ServiceAllocation,
    family_of,
    ports_of,
)
from berg.apiserver.kinds.core.service_fields import needs_health_check_port, needs_node_port
from berg.apiserver.kinds.core.service_validation import cluster_ips
from berg.machinery.status import ApiError, FieldError, Obj, internal_error, invalid, invalid_value


@dataclass(slots=True)
class _Reservation:
    allocation: ServiceAllocation
    dry_run: bool
    ips: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    free_ips: list[str] = field(default_factory=list)
    free_ports: list[int] = field(default_factory=list)

    def finish(self, stored: bool) -> None:
        """Keeps what was reserved and frees what the old object held, or the other way round."""
        if self.dry_run:
            self.allocation.release_ports(self.ports)
            return
        self.allocation.release_ports(self.free_ports if stored else self.ports)
        self.allocation.release_ips(self.free_ips if stored else self.ips)


async def begin(
    allocation: ServiceAllocation, obj: Obj, old: Obj | None, dry_run: bool
) -> Callable[[bool], None] | None:
    reserved = _Reservation(allocation, dry_run)
    try:
        if not _settled_prefer_dual(obj, old):
            _families(allocation, obj, old)
            await _cluster_ips(reserved, obj, old)
        _node_ports(reserved, obj, old)
    except BaseException:
        reserved.finish(False)
        raise
    return reserved.finish


def _invalid(obj: Obj, errors: list[FieldError]) -> ApiError:
    return invalid("", "Service", obj["metadata"].get("name") or "", errors)


def _settled_prefer_dual(obj: Obj, old: Obj | None) -> bool:
    """A PreferDualStack service is not changed by the cluster's becoming dual-stack or single."""
    if old is None:
        return False
    spec, before = obj["spec"], old["spec"]
    return (
        spec.get("ipFamilyPolicy") == "PreferDualStack"
        and before.get("ipFamilyPolicy") in (None, "PreferDualStack")
        and spec.get("type") == before.get("type") != "ExternalName"
        and all((spec.get(k) or None) == (before.get(k) or None) for k in ("clusterIP", "clusterIPs", "ipFamilies"))
    )


def _families(allocation: ServiceAllocation, obj: Obj, old: Obj | None) -> None:
    """Fills in ipFamilyPolicy and ipFamilies. Raises Invalid for what this cluster cannot do."""
    spec = obj["spec"]
    if spec.get("type") == "ExternalName":
        return
    configured = allocation.families
    before = (old or {}).get("spec") or {}
    headless = spec.get("clusterIP") == "None"
    bare = headless and not spec.get("selector")
    if spec.get("ipFamilyPolicy") is None:
        spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or ("RequireDualStack" if bare else "SingleStack")
    if errors := cluster_ips(spec, before):
        raise _invalid(obj, errors)
    policy = spec["ipFamilyPolicy"]
    ips: list[str] = list(spec.get("clusterIPs") or ())
    families: list[str] = list(spec.get("ipFamilies") or ())

    def refuse(path: str, value: object, why: str) -> None:
        errors.append(invalid_value(path, value, why))

    if old is not None:
        old_ips, old_families = before.get("clusterIPs") or [], before.get("ipFamilies") or []
        if policy == "SingleStack":
            if ips == old_ips:
                ips = ips[:1]
            if families == old_families:
                families = families[:1]
        else:
            if old_ips and len(ips) < len(old_ips):
                refuse("spec.ipFamilyPolicy", policy, "must be 'SingleStack' to release the secondary cluster IP")
            if old_families and len(families) < len(old_families):
                refuse("spec.ipFamilyPolicy", policy, "must be 'SingleStack' to release the secondary IP family")
    if policy == "SingleStack":
        for what, found in (("cluster IPs", ips), ("IP families", families)):
            if len(found) == 2:
                refuse(
                    "spec.ipFamilyPolicy",
                    policy,
                    f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified",
                )
    for i, ip in enumerate(ips):
        if ip == "None":
            break
        if i >= len(families):
            if family_of(ip) not in configured:
                refuse(f"spec.clusterIPs[{i}]", ips, f"{family_of(ip)} is not configured on this cluster")
            else:
                families.append(family_of(ip))
    if errors:
        raise _invalid(obj, errors)
    if bare:
        families = families or [configured[0]]
        if len(families) < 2 and policy != "SingleStack":
            families.append(_other(families[0]))
    else:
        if policy == "RequireDualStack" and len(configured) < 2:
            refuse("spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services")
        for i, family in enumerate(families):
            if family not in configured:
                refuse(f"spec.ipFamilies[{i}]", family, "not configured on this cluster")
        if errors:
            raise _invalid(obj, errors)
        families = families or [configured[0]]
        if policy != "SingleStack" and len(families) == 1 and len(configured) == 2:
            families.append(_other(families[0]))
    spec["ipFamilies"] = families
    if ips:
        spec["clusterIPs"] = ips


def _other(family: str) -> str:
    return "IPv6" if family == "IPv4" else "IPv4"


async def _cluster_ips(reserved: _Reservation, obj: Obj, old: Obj | None) -> None:
    spec = obj["spec"]
    before = (old or {}).get("spec") or {}
    held = [ip for ip in before.get("clusterIPs") or () if ip and ip != "None"]
    if spec.get("type") == "ExternalName":
        reserved.free_ips += held
        return
    ips: list[str] = list(spec.get("clusterIPs") or ())
    if ips and ips[0] == "None":
        return
    metadata = obj["metadata"]
    namespace, name = metadata.get("namespace") or "", metadata.get("name") or ""
    for i, family in enumerate(spec.get("ipFamilies") or ()):
        wanted = ips[i] if i < len(ips) else ""
        if wanted and (wanted in held or addresses.parse_ip(wanted) is None):
            continue  # it has it already; or it is no address, which validation will say
        try:
            if wanted:
                await reserved.allocation.allocate_ip(wanted, namespace, name, dry_run=reserved.dry_run)
                got = wanted
            else:
                got = await reserved.allocation.allocate_next_ip(family, namespace, name, dry_run=reserved.dry_run)
        except NotAllocatable as e:
            why = f"failed to allocate IP {wanted}: {e}"
            raise _invalid(obj, [invalid_value("spec.clusterIPs", ips, why)]) from None
        except RangeFull as e:
            raise internal_error(f'failed to allocate a serviceIP for Service "{name}": {e}') from None
        reserved.ips.append(got)
        ips[i : i + 1] = [got]
    spec["clusterIPs"] = ips
    if ips:
        spec["clusterIP"] = ips[0]
    reserved.free_ips += [ip for ip in held if ip not in ips]


def _node_ports(reserved: _Reservation, obj: Obj, old: Obj | None) -> None:
    spec = obj["spec"]
    held = set(ports_of(old)) if old else set()
    given: set[int] = set()
    taken: set[tuple[str | None, int]] = set()
    if needs_node_port(spec):
        by_port: dict[int, int] = {}
        automatic = spec["type"] == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)
        for i, port in enumerate(spec.get("ports") or ()):
            number = port.get("port")
            wanted = port.get("nodePort") or (by_port.get(number) or _requested(spec, number) if old is None else 0)
            if not wanted and not automatic:
                continue
            if not wanted:
                wanted = _next_port(reserved)
            elif wanted not in held and (wanted not in given if old else by_port.get(number) != wanted):
                try:
                    reserved.allocation.allocate_port(wanted, dry_run=reserved.dry_run)
                except NotAllocatable as e:
                    raise _invalid(obj, [invalid_value(f"spec.ports[{i}].nodePort", wanted, str(e))]) from None
                reserved.ports.append(wanted)
            port["nodePort"] = wanted
            if old is not None and (port.get("protocol"), wanted) in taken:
                raise ApiError(500, "", f"duplicate nodePort: {{{port.get('protocol')} {wanted}}}")
            taken.add((port.get("protocol"), wanted))
            given.add(wanted)
            by_port[number] = wanted
    if needs_health_check_port(spec):
        wanted = spec.get("healthCheckNodePort")
        if not wanted:
            spec["healthCheckNodePort"] = _next_port(reserved)
        elif old is None or not needs_health_check_port(old["spec"]):  # else it may not change, validation will say
            try:
                reserved.allocation.allocate_port(wanted, dry_run=reserved.dry_run)
            except NotAllocatable as e:
                raise internal_error(f"failed to allocate requested HealthCheck NodePort {wanted}: {e}") from None
            reserved.ports.append(wanted)
    reserved.free_ports += held - set(ports_of(obj))


def _requested(spec: Obj, number: int) -> int:
    """A node port that another entry of the same port asks for (TCP and UDP share it)."""
    for port in spec.get("ports") or ():
        if port.get("port") == number and port.get("nodePort"):
            return int(port["nodePort"])
    return 0


def _next_port(reserved: _Reservation) -> int:
    try:
        port = reserved.allocation.allocate_next_port()
    except RangeFull as e:
        raise internal_error(f"failed to allocate a nodePort: {e}") from None
    reserved.ports.append(port)
    return port
