"""Levels and versions of Pod Security, and the checks that belong to each.

Source: k8s.io/pod-security-admission api/helpers.go, policy/registry.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from berg.apiserver.admission.pod_security import baseline, restricted
from berg.apiserver.admission.pod_security.words import Check, Verdict
from berg.machinery.status import FieldError, Obj, invalid_value

LEVELS = ("privileged", "baseline", "restricted")
LATEST = 1 << 30
PREFIX = "pod-security.kubernetes.io/"
_version = re.compile(r"v1\.([0-9]|[1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Level:
    name: str = "privileged"
    minor: int = LATEST

    def __str__(self) -> str:
        return f"{self.name}:{'latest' if self.minor == LATEST else f'v1.{self.minor}'}"

    @property
    def rank(self) -> int:
        return LEVELS.index(self.name)


@dataclass(frozen=True, slots=True)
class Policy:
    enforce: Level = Level()
    audit: Level = Level()
    warn: Level = Level()

    @property
    def privileged(self) -> bool:
        return {self.enforce.name, self.audit.name, self.warn.name} == {"privileged"}


@dataclass(frozen=True, slots=True)
class _Entry:
    id: str
    since: int
    check: Check
    overrides: str = ""
    """the baseline check that this one is stricter than"""


BASELINE = (
    _Entry("appArmorProfile", 0, baseline.app_armor_profile),
    _Entry("capabilities_baseline", 0, baseline.capabilities),
    _Entry("hostNamespaces", 0, baseline.host_namespaces),
    _Entry("hostPathVolumes", 0, baseline.host_path_volumes),
    _Entry("hostPorts", 0, baseline.host_ports),
    _Entry("hostProbesAndHostLifecycle", 34, baseline.host_probes),
    _Entry("privileged", 0, baseline.privileged),
    _Entry("procMount", 0, baseline.proc_mount),
    _Entry("procMount", 35, baseline.proc_mount_relaxed),
    _Entry("seLinuxOptions", 0, baseline.selinux_options(0)),
    _Entry("seLinuxOptions", 31, baseline.selinux_options(31)),
    _Entry("seccompProfile_baseline", 0, baseline.seccomp_annotations),
    _Entry("seccompProfile_baseline", 19, baseline.seccomp_profile),
    _Entry("sysctls", 0, baseline.sysctls(0)),
    _Entry("sysctls", 27, baseline.sysctls(27)),
    _Entry("sysctls", 29, baseline.sysctls(29)),
    _Entry("sysctls", 32, baseline.sysctls(32)),
    _Entry("windowsHostProcess", 0, baseline.windows_host_process),
)
RESTRICTED = (
    _Entry("allowPrivilegeEscalation", 8, restricted.allow_privilege_escalation),
    _Entry("allowPrivilegeEscalation", 25, restricted.not_on_windows(restricted.allow_privilege_escalation)),
    _Entry("capabilities_restricted", 22, restricted.capabilities, "capabilities_baseline"),
    _Entry("capabilities_restricted", 25, restricted.not_on_windows(restricted.capabilities), "capabilities_baseline"),
    _Entry("procMount_restricted", 35, baseline.proc_mount, "procMount"),
    _Entry("restrictedVolumes", 0, restricted.volumes, "hostPathVolumes"),
    _Entry("runAsNonRoot", 0, restricted.run_as_non_root),
    _Entry("runAsNonRoot", 35, restricted.not_with_user_namespace(restricted.run_as_non_root)),
    _Entry("runAsUser", 23, restricted.run_as_user),
    _Entry("runAsUser", 35, restricted.not_with_user_namespace(restricted.run_as_user)),
    _Entry("seccompProfile_restricted", 19, restricted.seccomp_profile, "seccompProfile_baseline"),
    _Entry(
        "seccompProfile_restricted",
        25,
        restricted.not_on_windows(restricted.seccomp_profile),
        "seccompProfile_baseline",
    ),
)


def _current(entries: tuple[_Entry, ...], minor: int) -> dict[str, _Entry]:
    """Of each check the newest form that a version knows."""
    return {e.id: e for e in sorted(entries, key=lambda e: e.since) if e.since <= minor}


@cache
def checks_of(level: Level) -> tuple[Check, ...]:
    """Baseline checks first, each group in the order of its names."""
    if level.name == "privileged":
        return ()
    base = _current(BASELINE, level.minor)
    strict = _current(RESTRICTED, level.minor) if level.name == "restricted" else {}
    overridden = {e.overrides for e in strict.values()}
    kept = [base[i].check for i in sorted(base) if i not in overridden]
    return tuple(kept + [strict[i].check for i in sorted(strict)])


def violations(level: Level, metadata: Obj, spec: Obj) -> list[Verdict]:
    return [v for check in checks_of(level) if (v := check(metadata, spec)) is not None]


def describe(verdicts: list[Verdict]) -> str:
    return ", ".join(f"{v.reason} ({v.detail})" if v.detail else v.reason for v in verdicts)


def policy_of(labels: Mapping[str, str], defaults: Policy) -> tuple[Policy, list[FieldError]]:
    """A namespace's policy; a label that can't be read counts as the strictest when enforcing."""
    policy = defaults
    errors: list[FieldError] = []
    if not any(key.startswith(PREFIX) for key in labels):
        return policy, errors
    for mode in ("enforce", "audit", "warn"):
        level: Level = getattr(policy, mode)
        name, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version")
        if name is not None:
            if name not in LEVELS:
                errors.append(_bad(mode, name, f"must be one of {', '.join(LEVELS)}"))
                name = "restricted" if mode == "enforce" else "privileged"
            level = replace(level, name=name)
        if version is not None:
            match = _version.fullmatch(version)
            if version != "latest" and match is None:
                errors.append(_bad(f"{mode}-version", version, 'must be "latest" or "v1.x"'))
            level = replace(level, minor=int(match[1]) if match else LATEST)
        policy = replace(policy, **{mode: level})
    told = labels.get(f"{PREFIX}enforce")
    if told in LEVELS and f"{PREFIX}warn" not in labels and policy.enforce.rank > policy.warn.rank:
        minor = policy.warn.minor if f"{PREFIX}warn-version" in labels else policy.enforce.minor
        policy = replace(policy, warn=Level(policy.enforce.name, minor))
    return policy, errors


def _bad(label: str, value: str, why: str) -> FieldError:
    return invalid_value(f"metadata.labels[{PREFIX}{label}]", value, why)
