"""Containers: the ones that run, the ones that run before, and the ones added for debugging.

Source: kubernetes pkg/apis/core/validation validateContainers, validateInitContainers, validateEphemeralContainers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.pod_spec.environment import validate_env, validate_env_from
from berg.apiserver.kinds.core.pod_spec.mounts import validate_mounts
from berg.apiserver.kinds.core.pod_spec.probes import validate_lifecycle, validate_probes
from berg.apiserver.kinds.core.pod_spec.resource_checks import validate_requirements
from berg.apiserver.kinds.core.pod_spec.security import validate_security_context
from berg.machinery import names
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_field,
    not_supported,
    required,
    too_many,
)

PROTOCOLS = ["SCTP", "TCP", "UDP"]
RESTART_POLICIES = ["Always", "Never", "OnFailure"]
NOT_FOR_DEBUGGING = (
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
)
MAY_BE_EMPTY = ("ports", "resources", "resizePolicy", "restartPolicyRules")


@dataclass(slots=True)
class Surroundings:
    """What containers are checked against: the rest of their pod."""

    volumes: Mapping[str, Any]
    claims: Collection[str]
    grace_s: int | None
    os: str | None
    restart_policy: str
    host_users: bool


def _common(c: Obj, path: str, pod: Surroundings) -> list[FieldError]:
    errors = checks.required_name(f"{path}.name", c.get("name"), names.dns1123_label)
    if not c.get("image"):
        errors.append(required(f"{path}.image"))
    errors += checks.one_of(
        f"{path}.terminationMessagePolicy", c.get("terminationMessagePolicy"), ["File", "FallbackToLogsOnError"]
    )
    errors += _ports(c.get("ports") or (), f"{path}.ports")
    if env := c.get("env"):
        errors += validate_env(env, f"{path}.env")
    if env_from := c.get("envFrom"):
        errors += validate_env_from(env_from, f"{path}.envFrom")
    errors += validate_mounts(c, pod.volumes, path)
    errors += checks.one_of(f"{path}.imagePullPolicy", c.get("imagePullPolicy"), ["Always", "IfNotPresent", "Never"])
    errors += validate_requirements(c.get("resources"), f"{path}.resources", pod.claims)
    errors += _resize_policy(c.get("resizePolicy") or (), f"{path}.resizePolicy", pod.restart_policy)
    errors += validate_security_context(c.get("securityContext"), f"{path}.securityContext", host_users=pod.host_users)
    return errors


def _ports(ports: Collection[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, p in enumerate(ports):
        at, name = f"{path}[{i}]", p.get("name")
        if name:
            if faults := checks.named(f"{at}.name", name, names.port_name):
                errors += faults
            elif name in seen:
                errors.append(duplicate(f"{at}.name", name))
            seen.add(name)
        if not p.get("containerPort"):
            errors.append(required(f"{at}.containerPort"))
        else:
            errors += checks.port_number(f"{at}.containerPort", p["containerPort"])
        if p.get("hostPort"):
            errors += checks.port_number(f"{at}.hostPort", p["hostPort"])
        errors += checks.one_of(f"{at}.protocol", p.get("protocol"), PROTOCOLS)
    return errors


def _resize_policy(policies: Collection[Obj], path: str, restart_policy: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, p in enumerate(policies):
        name, policy = p.get("resourceName") or "", p.get("restartPolicy") or ""
        if name in seen:
            errors.append(duplicate(f"{path}[{i}]", name))
        seen.add(name)
        errors += checks.one_of(path, name, ["cpu", "memory"])
        errors += checks.one_of(path, policy, ["NotRequired", "RestartContainer"])
        if restart_policy == "Never" and policy != "NotRequired":
            why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'"
            errors.append(invalid_value(path, policy, why))
    return errors


def _restart(c: Obj, path: str) -> list[FieldError]:
    """A container's own restart policy and its rules."""
    policy, rules = c.get("restartPolicy"), c.get("restartPolicyRules") or ()
    errors: list[FieldError] = []
    if policy is None:
        if not rules:
            return []
        errors.append(required(f"{path}.restartPolicy", "must specify restartPolicy when restart rules are used"))
    elif policy not in RESTART_POLICIES:
        errors.append(not_supported(f"{path}.restartPolicy", policy, RESTART_POLICIES))
    if len(rules) > 20:
        errors.append(too_many(f"{path}.restartPolicyRules", len(rules), 20))
    for i, rule in enumerate(rules):
        at = f"{path}.restartPolicyRules[{i}]"
        if rule.get("action") not in ("Restart", "RestartAllContainers"):
            errors.append(not_supported(f"{at}.action", rule.get("action") or "", ["Restart", "RestartAllContainers"]))
        codes = rule.get("exitCodes")
        if codes is None:
            errors.append(required(f"{at}.exitCodes", "must be specified"))
            continue
        if codes.get("operator") not in ("In", "NotIn"):
            errors.append(not_supported(f"{at}.exitCodes.operator", codes.get("operator") or "", ["In", "NotIn"]))
        if len(codes.get("values") or ()) > 255:
            errors.append(too_many(f"{at}.exitCodes.values", len(codes["values"]), 255))
    return errors


def _host_ports(containers: Collection[Obj], path: str, start: int = 0) -> list[FieldError]:
    errors: list[FieldError] = []
    taken: set[str] = set()
    for i, c in enumerate(containers, start):
        for j, p in enumerate(c.get("ports") or ()):
            if not p.get("hostPort"):
                continue
            text = f"{p.get('protocol') or ''}/{p.get('hostIP') or ''}/{p['hostPort']}"
            if text in taken:
                errors.append(duplicate(f"{path}[{i}].ports[{j}].hostPort", text))
            taken.add(text)
    return errors


def validate_containers(containers: Collection[Obj], path: str, pod: Surroundings) -> list[FieldError]:
    if not containers:
        return [required(path)]
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, c in enumerate(containers):
        at, name = f"{path}[{i}]", c.get("name") or ""
        errors += _common(c, at, pod)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        if (lifecycle := c.get("lifecycle")) is not None:
            errors += validate_lifecycle(lifecycle, pod.grace_s, f"{at}.lifecycle", pod.os)
        errors += validate_probes(c, pod.grace_s, at) + _restart(c, at)
    return errors + _host_ports(containers, path)


def validate_init_containers(
    containers: Collection[Obj], regular: Collection[Obj], path: str, pod: Surroundings
) -> list[FieldError]:
    errors: list[FieldError] = []
    seen = {c.get("name") or "" for c in regular}
    for i, c in enumerate(containers):
        at, name = f"{path}[{i}]", c.get("name") or ""
        sidecar = c.get("restartPolicy") == "Always"
        errors += _common(c, at, pod)
        rules = c.get("restartPolicyRules")
        if c.get("restartPolicy") is None and rules:
            errors.append(required(f"{at}.restartPolicy", "must specify restartPolicy when restart rules are used"))
        else:
            errors += _restart(c, at)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        elif name:
            seen.add(name)
        errors += _host_ports([c], path)
        if sidecar:
            if (lifecycle := c.get("lifecycle")) is not None:
                errors += validate_lifecycle(lifecycle, pod.grace_s, f"{at}.lifecycle", pod.os)
            errors += validate_probes(c, pod.grace_s, at)
            continue
        why = "may not be set for init containers without restartPolicy=Always"
        errors += [
            forbidden_field(f"{at}.{key}", why)
            for key in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
            if c.get(key) is not None
        ]
        for j, p in enumerate(c.get("resizePolicy") or ()):
            if p.get("restartPolicy") == "RestartContainer":
                why = "must not be set to 'RestartContainer' for non-sidecar initContainers"
                errors.append(invalid_value(f"{at}.resizePolicy[{j}].restartPolicy", "RestartContainer", why))
    return errors


def validate_ephemeral_containers(
    containers: Collection[Obj], others: Collection[Obj], path: str, pod: Surroundings
) -> list[FieldError]:
    errors: list[FieldError] = []
    targets = {c.get("name") or "" for c in others}
    seen = set(targets)
    why = "cannot be set for an Ephemeral Container"
    for i, c in enumerate(containers):
        at, name = f"{path}[{i}]", c.get("name") or ""
        errors += _common(c, at, pod) + validate_image_text(c, at)
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        target = c.get("targetContainerName")
        if target and target not in targets:
            errors.append(not_found_field(f"{at}.targetContainerName", target))
        errors += [
            forbidden_field(f"{at}.{key}", why)
            for key in NOT_FOR_DEBUGGING
            if c.get(key) or (c.get(key) is not None and key not in MAY_BE_EMPTY)
        ]
        for j, m in enumerate(c.get("volumeMounts") or ()):
            errors += [
                forbidden_field(f"{at}.volumeMounts[{j}].{key}", why)
                for key in ("subPath", "subPathExpr")
                if m.get(key)
            ]
    return errors


def validate_image_text(c: Obj, path: str) -> list[FieldError]:
    """In pods only: templates of old were never checked for it."""
    image = c.get("image") or ""
    if image.strip() == image:
        return []
    return [invalid_value(f"{path}.image", image, "must not have leading or trailing whitespace")]
