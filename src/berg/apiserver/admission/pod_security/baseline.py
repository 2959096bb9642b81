"""The checks of the baseline level: nothing that is known to lead out of a container.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards; k8s.io/pod-security-admission policy.
"""

from __future__ import annotations

from collections.abc import Iterator

from berg.apiserver.admission.pod_security.words import (
    Check,
    Verdict,
    containers,
    has_user_namespace,
    named,
    plural,
    quoted,
    security,
    setters,
)
from berg.machinery.status import Obj

APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
_SYSCTLS = {
    0: (
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
    ),
    27: ("net.ipv4.ip_local_reserved_ports",),
    29: (
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    ),
    32: ("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
"""safe sysctls by the minor version that they came with"""
_SELINUX = {0: ("", "container_t", "container_init_t", "container_kvm_t"), 31: ("container_engine_t",)}
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


def _since(table: dict[int, tuple[str, ...]], minor: int) -> set[str]:
    return {value for since, values in table.items() if since <= minor for value in values}


def app_armor_profile(metadata: Obj, spec: Obj) -> Verdict | None:
    allowed = ("RuntimeDefault", "Localhost")
    pod = security(spec).get("appArmorProfile")
    bad_pod = pod is not None and pod.get("type") not in allowed
    values = {pod.get("type") or ""} if bad_pod and pod else set()
    bad: list[str] = []
    for c in containers(spec):
        profile = security(c).get("appArmorProfile")
        if profile is not None and profile.get("type") not in allowed:
            bad.append(c.get("name") or "")
            values.add(profile.get("type") or "")
    annotations = sorted(
        f'{k}="{v}"'
        for k, v in (metadata.get("annotations") or {}).items()
        if k.startswith(APP_ARMOR) and v not in ("", "runtime/default") and not v.startswith("localhost/")
    )
    who = [setters(bad_pod, bad)] if bad_pod or bad else []
    if annotations:
        who.append(plural("annotation", "annotations", annotations))
    if not who:
        return None
    shown = sorted(values) + annotations
    return Verdict(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", shown),
        f"{' and '.join(who)} must not set AppArmor profile type to {quoted(shown)}",
    )


def capabilities(metadata: Obj, spec: Obj) -> Verdict | None:
    bad: list[str] = []
    found: set[str] = set()
    for c in containers(spec):
        extra = set((security(c).get("capabilities") or {}).get("add") or ()) - CAPABILITIES
        if extra:
            bad.append(c.get("name") or "")
            found |= extra
    if not bad:
        return None
    detail = f"{named(bad)} must not include {quoted(sorted(found))} in securityContext.capabilities.add"
    return Verdict("non-default capabilities", detail)


def host_namespaces(metadata: Obj, spec: Obj) -> Verdict | None:
    found = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    return Verdict("host namespaces", ", ".join(found)) if found else None


def host_path_volumes(metadata: Obj, spec: Obj) -> Verdict | None:
    found = [v.get("name") or "" for v in spec.get("volumes") or () if v.get("hostPath") is not None]
    if not found:
        return None
    return Verdict("hostPath volumes", f"{plural('volume', 'volumes', found)} {quoted(found)}")


def host_ports(metadata: Obj, spec: Obj) -> Verdict | None:
    bad: list[str] = []
    ports: set[str] = set()
    for c in containers(spec):
        found = {str(p["hostPort"]) for p in c.get("ports") or () if p.get("hostPort")}
        if found:
            bad.append(c.get("name") or "")
            ports |= found
    if not bad:
        return None
    words = f"{plural('uses', 'use', bad)} {plural('hostPort', 'hostPorts', ports)} {', '.join(sorted(ports))}"
    return Verdict("hostPort", f"{named(bad)} {words}")


def _hosts(c: Obj) -> Iterator[str]:
    lifecycle = c.get("lifecycle") or {}
    handlers = [c.get(k) for k in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += [lifecycle.get(k) for k in ("postStart", "preStop")]
    for handler in handlers:
        for kind in ("httpGet", "tcpSocket"):
            if host := ((handler or {}).get(kind) or {}).get("host"):
                yield host


def host_probes(metadata: Obj, spec: Obj) -> Verdict | None:
    bad = {c.get("name") or "" for c in containers(spec) if any(_hosts(c))}
    if not bad:
        return None
    hosts = {h for c in containers(spec) for h in _hosts(c)}
    what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts)
    detail = f"{named(sorted(bad))} {plural('uses', 'use', bad)} {what} {quoted(sorted(hosts))}"
    return Verdict("probe or lifecycle host", detail)


def privileged(metadata: Obj, spec: Obj) -> Verdict | None:
    bad = [c.get("name") or "" for c in containers(spec) if security(c).get("privileged")]
    return Verdict("privileged", f"{named(bad)} must not set securityContext.privileged=true") if bad else None


def proc_mount(metadata: Obj, spec: Obj) -> Verdict | None:
    bad: list[str] = []
    kinds: set[str] = set()
    for c in containers(spec):
        kind = security(c).get("procMount")
        if kind is not None and kind != "Default":
            bad.append(c.get("name") or "")
            kinds.add(kind)
    if not bad:
        return None
    return Verdict("procMount", f"{named(bad)} must not set securityContext.procMount to {quoted(sorted(kinds))}")


def proc_mount_relaxed(metadata: Obj, spec: Obj) -> Verdict | None:
    return None if has_user_namespace(spec) else proc_mount(metadata, spec)


def selinux_options(minor: int) -> Check:
    allowed = _since(_SELINUX, minor)

    def check(metadata: Obj, spec: Obj) -> Verdict | None:
        types: set[str] = set()
        user = role = False

        def is_bad(options: Obj | None) -> bool:
            nonlocal user, role
            if options is None:
                return False
            wrong = (options.get("type") or "") not in allowed
            if wrong:
                types.add(options["type"])
            user, role = user or bool(options.get("user")), role or bool(options.get("role"))
            return wrong or bool(options.get("user") or options.get("role"))

        pod = is_bad(security(spec).get("seLinuxOptions"))
        bad = [c.get("name") or "" for c in containers(spec) if is_bad(security(c).get("seLinuxOptions"))]
        if not pod and not bad:
            return None
        data = [f"{plural('type', 'types', types)} {quoted(sorted(types))}"] if types else []
        data += ["user may not be set"] if user else []
        data += ["role may not be set"] if role else []
        detail = f"{setters(pod, bad)} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}"
        return Verdict("seLinuxOptions", detail)

    return check


def seccomp_annotations(metadata: Obj, spec: Obj) -> Verdict | None:
    """Before there were fields."""
    annotations = metadata.get("annotations") or {}
    keys = [_SECCOMP_POD, *(f"{_SECCOMP_CONTAINER}{c.get('name')}" for c in containers(spec))]
    found = {
        f'{key}="{annotations[key]}"'
        for key in keys
        if key in annotations
        and annotations[key] not in ("runtime/default", "docker/default")
        and not annotations[key].startswith("localhost/")
    }
    if not found:
        return None
    detail = f"forbidden {plural('annotation', 'annotations', found)} {', '.join(sorted(found))}"
    return Verdict("seccompProfile", detail)


def seccomp_profile(metadata: Obj, spec: Obj) -> Verdict | None:
    allowed = ("RuntimeDefault", "Localhost")
    pod_profile = security(spec).get("seccompProfile")
    pod = pod_profile is not None and pod_profile.get("type") not in allowed
    values = {pod_profile.get("type") or ""} if pod and pod_profile is not None else set()
    bad: list[str] = []
    for c in containers(spec):
        profile = security(c).get("seccompProfile")
        if profile is not None and profile.get("type") not in allowed:
            bad.append(c.get("name") or "")
            values.add(profile.get("type") or "")
    if not pod and not bad:
        return None
    detail = f"{setters(pod, bad)} must not set securityContext.seccompProfile.type to {quoted(sorted(values))}"
    return Verdict("seccompProfile", detail)


def sysctls(minor: int) -> Check:
    allowed = _since(_SYSCTLS, minor)

    def check(metadata: Obj, spec: Obj) -> Verdict | None:
        found = [s.get("name") or "" for s in security(spec).get("sysctls") or () if s.get("name") not in allowed]
        return Verdict("forbidden sysctls", ", ".join(found)) if found else None

    return check


def windows_host_process(metadata: Obj, spec: Obj) -> Verdict | None:
    def uses(holder: Obj) -> bool:
        return bool((security(holder).get("windowsOptions") or {}).get("hostProcess"))

    bad = [c.get("name") or "" for c in containers(spec) if uses(c)]
    if not uses(spec) and not bad:
        return None
    who = setters(uses(spec), bad)
    return Verdict("hostProcess", f"{who} must not set securityContext.windowsOptions.hostProcess=true")
