"""Security contexts of pods and containers: users and groups, seccomp, AppArmor, sysctls, host namespaces, the
operating system's own fields.

Source: kubernetes pkg/apis/core/validation ValidateSecurityContext, validatePodSpecSecurityContext.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.pod_spec import windows
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)

_SYSCTL = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
_sysctl = re.compile(_SYSCTL)
_PROFILE_TYPES = ["Localhost", "RuntimeDefault", "Unconfined"]
_IPC_SYSCTLS = ("kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.sem")


def containers_with_path(spec: Obj, path: str) -> Iterator[tuple[Obj, str]]:
    """Every container of a spec, init containers first."""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for i, c in enumerate(spec.get(key) or ()):
            yield c, f"{path}.{key}[{i}]"


def _id(path: str, value: Any) -> list[FieldError]:
    if value is None or 0 <= value <= checks.MAX_INT32:
        return []
    return [invalid_value(path, value, f"must be between 0 and {checks.MAX_INT32}, inclusive")]


def _relative(path: str, value: str) -> list[FieldError]:
    errors = [invalid_value(path, value, "must be a relative path")] if value.startswith("/") else []
    if ".." in value.split("/"):
        errors.append(invalid_value(path, value, "must not contain '..'"))
    return errors


def seccomp_profile(profile: Obj | None, path: str) -> list[FieldError]:
    if profile is None:
        return []
    errors = checks.one_of(
        f"{path}.type", profile.get("type"), _PROFILE_TYPES, empty="type is required when seccompProfile is set"
    )
    local = profile.get("localhostProfile")
    if profile.get("type") == "Localhost":
        if local is None:
            errors.append(required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost"))
        else:
            errors += _relative(f"{path}.localhostProfile", local)
    elif local is not None:
        shown = {"Type": profile.get("type") or "", "LocalhostProfile": local}
        errors.append(
            invalid_value(f"{path}.localhostProfile", shown, "can only be set when seccomp type is Localhost")
        )
    return errors


def app_armor_profile(profile: Obj | None, path: str) -> list[FieldError]:
    if profile is None:
        return []
    kind, at, local = profile.get("type"), f"{path}.localhostProfile", profile.get("localhostProfile")
    if kind == "Localhost":
        if local is None or not local.strip():
            if local and local != local.strip():
                return [invalid_value(at, local, "must not be padded with whitespace")]
            return [required(at, "must be set when AppArmor type is Localhost")]
        errors = []
        if local != local.strip():
            errors.append(invalid_value(at, local, "must not be padded with whitespace"))
        if len(local) > 4095:
            errors.append(too_long(at, "", 4095))
        return errors
    if kind in ("RuntimeDefault", "Unconfined"):
        return [] if local is None else [invalid_value(at, local, "can only be set when AppArmor type is Localhost")]
    return checks.one_of(f"{path}.type", kind, _PROFILE_TYPES, empty="type is required when appArmorProfile is set")


class Capabilities:
    """What this process lets anybody ask for; set once, when a server starts. Source: kubernetes pkg/capabilities."""

    allow_privileged = True
    compare_taints = False
    """tolerations may be of taints that are more or less than a number"""


def validate_security_context(sc: Obj | None, path: str, *, host_users: bool) -> list[FieldError]:
    """A container's."""
    if not sc:
        return []
    errors = []
    if sc.get("privileged") and not Capabilities.allow_privileged:
        errors.append(forbidden_field(f"{path}.privileged", "disallowed by cluster policy"))
    errors += _id(f"{path}.runAsUser", sc.get("runAsUser")) + _id(f"{path}.runAsGroup", sc.get("runAsGroup"))
    if (mount := sc.get("procMount")) is not None:
        if mount not in ("Default", "Unmasked"):
            errors.append(not_supported(f"{path}.procMount", mount, ["Default", "Unmasked"]))
        if host_users and mount == "Unmasked":
            errors.append(invalid_value(f"{path}.procMount", mount, "`hostUsers` must be false to use `Unmasked`"))
    errors += seccomp_profile(sc.get("seccompProfile"), f"{path}.seccompProfile")
    if sc.get("allowPrivilegeEscalation") is False:
        if sc.get("privileged"):
            why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            errors.append(invalid_value(path, sc, why))
        if "CAP_SYS_ADMIN" in ((sc.get("capabilities") or {}).get("add") or ()):
            why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            errors.append(invalid_value(path, sc, why))
    errors += windows.validate_options(sc.get("windowsOptions"), f"{path}.windowsOptions")
    return errors + app_armor_profile(sc.get("appArmorProfile"), f"{path}.appArmorProfile")


def validate_pod_security_context(spec: Obj, path: str) -> list[FieldError]:
    sc = spec.get("securityContext")
    if not sc:
        return []
    at = f"{path}.securityContext"
    errors: list[FieldError] = []
    for key in ("fsGroup", "runAsUser", "runAsGroup"):
        errors += _id(f"{at}.{key}", sc.get(key))
    for i, gid in enumerate(sc.get("supplementalGroups") or ()):
        errors += _id(f"{at}.supplementalGroups[{i}]", gid)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        why = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(invalid_value(f"{at}.shareProcessNamespace", True, why))
    errors += _sysctls(spec, sc.get("sysctls") or (), f"{at}.sysctls")
    errors += _policy(sc, "fsGroupChangePolicy", ["Always", "OnRootMismatch"], at)
    errors += seccomp_profile(sc.get("seccompProfile"), f"{at}.seccompProfile")
    errors += windows.validate_options(sc.get("windowsOptions"), f"{at}.windowsOptions")
    errors += app_armor_profile(sc.get("appArmorProfile"), f"{at}.appArmorProfile")
    errors += _policy(sc, "supplementalGroupsPolicy", ["Merge", "Strict"], at)
    return errors + _policy(sc, "seLinuxChangePolicy", ["MountOption", "Recursive"], at)


def _policy(sc: Obj, key: str, supported: list[str], path: str) -> list[FieldError]:
    value = sc.get(key)
    return [] if value is None or value in supported else [not_supported(f"{path}.{key}", value, supported)]


def validate_host_process(spec: Obj, path: str) -> list[FieldError]:
    containers = containers_with_path(spec, path)
    return windows.validate_host_process(spec, path, containers, allowed=Capabilities.allow_privileged)


def _sysctls(spec: Obj, sysctls: Any, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, s in enumerate(sysctls):
        at, name = f"{path}[{i}].name", s.get("name") or ""
        if not name:
            errors.append(required(at))
        elif len(name) > 253 or not _sysctl.match(name):
            errors.append(invalid_value(at, name, f"must have at most 253 characters and match regex {_SYSCTL}"))
        elif name in seen:
            errors.append(duplicate(at, name))
        seen.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            errors.append(invalid_value(at, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and (dotted in _IPC_SYSCTLS or dotted.startswith(("kernel.msg", "fs.mqueue."))):
            errors.append(invalid_value(at, name, "may not be specified when 'hostIPC' is true"))
    return errors


def validate_host_users(spec: Obj, path: str) -> list[FieldError]:
    if spec.get("hostUsers") is not False:
        return []
    errors = [
        forbidden_field(f"{path}.{shown}", "when `hostUsers` is false")
        for key, shown in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC"))
        if spec.get(key)
    ]
    errors += [
        forbidden_field(f"{at}.volumeDevices", "when `hostUsers` is false")
        for c, at in containers_with_path(spec, path)
        if c.get("volumeDevices")
    ]
    return errors


_NOT_ON_WINDOWS_POD = (
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "shareProcessNamespace",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.seLinuxChangePolicy",
)
_NOT_ON_WINDOWS = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
)


def validate_os(spec: Obj, path: str) -> list[FieldError]:
    """`spec.os`: fields that the named system does not have may not be set."""
    os = spec.get("os")
    if os is None:
        return []
    name = os.get("name")
    if not name:
        return [required(f"{path}.os.name")]
    if name not in ("linux", "windows"):
        return [not_supported(f"{path}.os", name, ["linux", "windows"])]
    errors: list[FieldError] = []
    if name == "linux":
        why = "windows options cannot be set for a linux pod"
        if (spec.get("securityContext") or {}).get("windowsOptions") is not None:
            errors.append(forbidden_field(f"{path}.securityContext.windowsOptions", why))
        for c, at in containers_with_path(spec, path):
            if (c.get("securityContext") or {}).get("windowsOptions") is not None:
                errors.append(forbidden_field(f"{at}.securityContext.windowsOptions", why))
        return errors
    why = "cannot be set for a windows pod"
    for key in _NOT_ON_WINDOWS_POD:
        holder, _, field = key.rpartition(".")
        value = (spec.get(holder) or {} if holder else spec).get(field)
        if (
            value is not None
            and value != []
            and (value is not False or field in ("hostUsers", "shareProcessNamespace"))
        ):
            errors.append(forbidden_field(f"{path}.{key}", why))
    for c, at in containers_with_path(spec, path):
        sc = c.get("securityContext") or {}
        errors += [
            forbidden_field(f"{at}.securityContext.{key}", why) for key in _NOT_ON_WINDOWS if sc.get(key) is not None
        ]
    return errors
