"""The checks of the restricted level: what hardened pods look like.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards; k8s.io/pod-security-admission policy.
"""

from __future__ import annotations

from berg.apiserver.admission.pod_security import baseline
from berg.apiserver.admission.pod_security.words import (
    Check,
    Verdict,
    containers,
    has_user_namespace,
    is_windows,
    named,
    plural,
    quoted,
    security,
    setters,
)
from berg.machinery.status import Obj

VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)


def not_on_windows(check: Check) -> Check:
    return lambda metadata, spec: None if is_windows(spec) else check(metadata, spec)


def not_with_user_namespace(check: Check) -> Check:
    return lambda metadata, spec: None if has_user_namespace(spec) else check(metadata, spec)


def allow_privilege_escalation(metadata: Obj, spec: Obj) -> Verdict | None:
    bad = [c.get("name") or "" for c in containers(spec) if security(c).get("allowPrivilegeEscalation") is not False]
    if not bad:
        return None
    detail = f"{named(bad)} must set securityContext.allowPrivilegeEscalation=false"
    return Verdict("allowPrivilegeEscalation != false", detail)


def capabilities(metadata: Obj, spec: Obj) -> Verdict | None:
    keeping: list[str] = []
    adding: list[str] = []
    found: set[str] = set()
    for c in containers(spec):
        name, given = c.get("name") or "", security(c).get("capabilities") or {}
        if "ALL" not in (given.get("drop") or ()):
            keeping.append(name)
        extra = set(given.get("add") or ()) - {"NET_BIND_SERVICE"}
        if extra:
            adding.append(name)
            found |= extra
    details = []
    if keeping:
        details.append(f'{named(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding:
        details.append(f"{named(adding)} must not include {quoted(sorted(found))} in securityContext.capabilities.add")
    return Verdict("unrestricted capabilities", "; ".join(details)) if details else None


def volumes(metadata: Obj, spec: Obj) -> Verdict | None:
    bad: list[str] = []
    kinds: set[str] = set()
    for v in spec.get("volumes") or ():
        given = {k for k, value in v.items() if k != "name" and value is not None}
        if not given & VOLUMES:
            bad.append(v.get("name") or "")
            kinds |= given or {"unknown"}
    if not bad:
        return None
    what = plural("restricted volume type", "restricted volume types", kinds)
    detail = f"{plural('volume', 'volumes', bad)} {quoted(bad)} {plural('uses', 'use', bad)} {what}"
    return Verdict("restricted volume types", f"{detail} {quoted(sorted(kinds))}")


def run_as_non_root(metadata: Obj, spec: Obj) -> Verdict | None:
    pod = security(spec).get("runAsNonRoot")
    explicit: list[str] = []
    implicit: list[str] = []
    for c in containers(spec):
        own = security(c).get("runAsNonRoot")
        if own is False:
            explicit.append(c.get("name") or "")
        elif own is None and not pod:
            implicit.append(c.get("name") or "")
    if pod is False or explicit:
        who = setters(pod is False, explicit)
        return Verdict("runAsNonRoot != true", f"{who} must not set securityContext.runAsNonRoot=false")
    if implicit:
        detail = f"pod or {named(implicit)} must set securityContext.runAsNonRoot=true"
        return Verdict("runAsNonRoot != true", detail)
    return None


def run_as_user(metadata: Obj, spec: Obj) -> Verdict | None:
    pod = security(spec).get("runAsUser") == 0
    bad = [c.get("name") or "" for c in containers(spec) if security(c).get("runAsUser") == 0]
    return Verdict("runAsUser=0", f"{setters(pod, bad)} must not set runAsUser=0") if pod or bad else None


def seccomp_profile(metadata: Obj, spec: Obj) -> Verdict | None:
    if verdict := baseline.seccomp_profile(metadata, spec):
        return verdict
    if security(spec).get("seccompProfile") is not None:
        return None
    bad = [c.get("name") or "" for c in containers(spec) if security(c).get("seccompProfile") is None]
    if not bad:
        return None
    detail = f'pod or {named(bad)} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Verdict("seccompProfile", detail)
