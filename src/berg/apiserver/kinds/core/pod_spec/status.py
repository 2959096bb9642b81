"""Which changes of a pod's status are believed.

Source: kubernetes pkg/apis/core/validation ValidatePodStatusUpdate.
"""

from __future__ import annotations

from berg.apiserver.kinds import addresses, checks
from berg.apiserver.kinds.core.pod_spec import status_devices
from berg.apiserver.kinds.core.pod_spec.update import annotation_updates
from berg.apiserver.kinds.immutable import immutable
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value

_SYSTEM_CONDITIONS = ("PodScheduled", "Ready", "Initialized")
TERMINATED = "may not be transitioned to non-terminated state"


def validate_pod_status_update(obj: Obj, old: Obj) -> list[FieldError]:
    status, before = obj.get("status") or {}, old.get("status") or {}
    errors = annotation_updates(obj, old)
    for i, c in enumerate(status.get("conditions") or ()):
        at = f"status.conditions[{i}]"
        if (c.get("observedGeneration") or 0) < 0:
            errors.append(
                invalid_value(f"{at}.observedGeneration", c["observedGeneration"], "must be a non-negative integer")
            )
        if c.get("type") not in _SYSTEM_CONDITIONS:
            errors += checks.named(f"{at}.Type", c.get("type") or "", names.qualified_name)
    nominated = status.get("nominatedNodeName") or ""
    if nominated and nominated != (before.get("nominatedNodeName") or ""):
        errors += checks.named("status.nominatedNodeName", nominated)
        if old["spec"].get("nodeName"):
            why = "may not be set on pods that are already bound to a node"
            errors.append(forbidden_field("status.nominatedNodeName", why))
    if (status.get("observedGeneration") or 0) < 0:
        generation = status["observedGeneration"]
        errors.append(invalid_value("status.observedGeneration", generation, "must be a non-negative integer"))
    errors += immutable(obj, old, "status.qosClass")
    for key, specs in (
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ):
        errors += _transitions(status.get(key) or [], before.get(key) or [], f"status.{key}", old["spec"], specs)
    errors += status_devices.claims(status, obj["spec"]) + _ips(status, before)
    return errors + status_devices.users(status, obj["spec"]) + status_devices.health(status, obj["spec"])


def _may_restart(c: Obj | None, spec: Obj, exit_code: int) -> bool:
    """Source: kubernetes pkg/api/v1/pod ContainerShouldRestart."""
    if c is None:
        return False
    policy = c.get("restartPolicy")
    for rule in c.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        listed = exit_code in (codes.get("values") or ())
        if listed == (codes.get("operator") == "In"):
            return True
    policy = policy or spec.get("restartPolicy") or "Always"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def _all_may_restart(spec: Obj) -> bool:
    """A rule somewhere may start every container anew."""
    return any(
        rule.get("action") == "RestartAllContainers"
        for key in ("containers", "initContainers")
        for c in spec.get(key) or ()
        for rule in c.get("restartPolicyRules") or ()
    )


def _transitions(new: list[Obj], old: list[Obj], path: str, spec: Obj, specs: str) -> list[FieldError]:
    """What has ended for good does not run again."""
    errors: list[FieldError] = []
    if specs and _all_may_restart(spec):
        return errors
    now = {s.get("name"): s for s in new}
    known = {c.get("name"): c for c in (spec.get(specs) or () if specs else ())}
    for i, was in enumerate(old):
        terminated = (was.get("state") or {}).get("terminated")
        name = was.get("name")
        if terminated is None or name not in now or (now[name].get("state") or {}).get("terminated") is not None:
            continue
        if not specs or not _may_restart(known.get(name), spec, terminated.get("exitCode") or 0):
            errors.append(forbidden_field(f"{path}[{i}].state", TERMINATED))
    return errors


def _ips(status: Obj, before: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("podIPs", "hostIPs"):
        given = [e.get("ip") or "" for e in status.get(key) or ()]
        known = [e.get("ip") or "" for e in before.get(key) or ()]
        at = f"status.{key}"
        if key == "hostIPs" and given and status.get("hostIP") != given[0]:
            errors.append(invalid_value(f"{at}[0].ip", given[0], "must be equal to `hostIP`"))
        for i, ip in enumerate(given):
            errors += addresses.legacy_ip(f"{at}[{i}]", ip, known)
        parsed = [addresses.parse_ip(ip) for ip in given]
        if len(given) > 1 and None in parsed:
            i = parsed.index(None)
            fault = f"failed to check for dual stack with error:invalid IP[{i}]: {given[i]}"
            errors.append(FieldError("InternalError", at, "", fault))
        families = [a.version for a in parsed if a is not None] if None not in parsed else []
        if len(given) > 1 and (not addresses.dual_stack(families) or len(given) > 2):
            why = "may specify no more than one IP for each IP family"
            errors.append(invalid_value(at, status[key], why))
    return errors
