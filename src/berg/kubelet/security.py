"""securityContext of pod and container → CRI.

Source: pkg/kubelet/kuberuntime/security_context.go, kuberuntime_sandbox.go, pkg/securitycontext/util.go.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from berg.kubelet import pod as p
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class SecurityError(Exception):
    """Shown as CreateContainerConfigError."""


def effective(pod: Obj, c: Obj) -> Obj:
    """What holds for container `c`: its own settings over those of the pod that it shares."""
    shared = pod["spec"].get("securityContext") or {}
    keys = ("seLinuxOptions", "runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile", "appArmorProfile")
    merged = {k: shared[k] for k in keys if shared.get(k) is not None}
    merged.update({k: v for k, v in (c.get("securityContext") or {}).items() if v is not None})
    return merged


def namespaces(pod: Obj, target_id: str = "") -> Any:
    """`target_id`: the container whose processes this one may see (an ephemeral container's target)."""
    spec = pod["spec"]
    if spec.get("hostPID"):
        pid = pb.NODE
    else:
        pid = pb.POD if spec.get("shareProcessNamespace") else pb.CONTAINER
    options = pb.NamespaceOption(
        network=pb.NODE if spec.get("hostNetwork") else pb.POD,
        ipc=pb.NODE if spec.get("hostIPC") else pb.POD,
        pid=pid,
    )
    if target_id:
        options.pid = pb.TARGET
        options.target_id = target_id
    return options


def supplemental_groups(pod: Obj) -> list[int]:
    context = pod["spec"].get("securityContext") or {}
    groups = list(context.get("supplementalGroups") or [])
    if context.get("fsGroup") is not None:
        groups.insert(0, context["fsGroup"])
    return groups


def _policy(pod: Obj) -> pb.SupplementalGroupsPolicy:
    policy = (pod["spec"].get("securityContext") or {}).get("supplementalGroupsPolicy")
    return pb.SupplementalGroupsPolicy.Strict if policy == "Strict" else pb.SupplementalGroupsPolicy.Merge


def _seccomp(profile: Obj | None, privileged: bool, root: Path, default: bool) -> Any:
    kind = (profile or {}).get("type")
    if privileged or (kind is None and not default) or kind == "Unconfined":
        return pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)
    if kind == "Localhost":
        path = (profile or {}).get("localhostProfile") or ""
        if not path:
            raise SecurityError("localhostProfile must be set if seccompProfile type is Localhost.")
        return pb.SecurityProfile(profile_type=pb.SecurityProfile.Localhost, localhost_ref=str(root / path))
    return pb.SecurityProfile(profile_type=pb.SecurityProfile.RuntimeDefault)


def _apparmor(pod: Obj, c: Obj, profile: Obj | None) -> Any | None:
    old = p.annotations(pod).get(f"container.apparmor.security.beta.kubernetes.io/{c['name']}")
    if profile is None and old:
        if old == "unconfined":
            profile = {"type": "Unconfined"}
        elif old.startswith("localhost/"):
            profile = {"type": "Localhost", "localhostProfile": old.removeprefix("localhost/")}
        else:
            profile = {"type": "RuntimeDefault"}
    if profile is None:
        return None
    match profile["type"]:
        case "Localhost":
            return pb.SecurityProfile(
                profile_type=pb.SecurityProfile.Localhost, localhost_ref=profile.get("localhostProfile", "")
            )
        case "Unconfined":
            return pb.SecurityProfile(profile_type=pb.SecurityProfile.Unconfined)
    return pb.SecurityProfile(profile_type=pb.SecurityProfile.RuntimeDefault)


def sandbox(pod: Obj, *, seccomp_root: Path) -> Any:
    """The CRI LinuxSandboxSecurityContext."""
    context = pod["spec"].get("securityContext") or {}
    privileged = any((c.get("securityContext") or {}).get("privileged") for c in p.all_containers(pod))
    answer = pb.LinuxSandboxSecurityContext(
        namespace_options=namespaces(pod),
        privileged=privileged,
        supplemental_groups=supplemental_groups(pod),
        supplemental_groups_policy=_policy(pod),
        seccomp=pb.SecurityProfile(profile_type=pb.SecurityProfile.RuntimeDefault),
    )
    if context.get("runAsUser") is not None:
        answer.run_as_user.value = context["runAsUser"]
    if context.get("runAsGroup") is not None:
        answer.run_as_group.value = context["runAsGroup"]
    if context.get("seLinuxOptions"):
        answer.selinux_options.CopyFrom(_selinux(context["seLinuxOptions"]))
    return answer


def _selinux(options: Obj) -> Any:
    return pb.SELinuxOption(**{k: options.get(k, "") for k in ("user", "role", "type", "level")})


def container(
    pod: Obj,
    c: Obj,
    image_uid: int | None,
    image_user: str,
    *,
    target_id: str = "",
    seccomp_root: Path,
    seccomp_default: bool = False,
) -> Any:
    """The CRI LinuxContainerSecurityContext. `image_uid`/`image_user`: what the image says."""
    context = effective(pod, c)
    privileged = bool(context.get("privileged"))
    answer = pb.LinuxContainerSecurityContext(
        privileged=privileged,
        namespace_options=namespaces(pod, target_id),
        readonly_rootfs=bool(context.get("readOnlyRootFilesystem")),
        supplemental_groups=supplemental_groups(pod),
        supplemental_groups_policy=_policy(pod),
        no_new_privs=context.get("allowPrivilegeEscalation") is False,
        seccomp=_seccomp(context.get("seccompProfile"), privileged, seccomp_root, seccomp_default),
    )
    if context.get("runAsUser") is not None:
        answer.run_as_user.value = context["runAsUser"]
    elif image_uid is not None:
        answer.run_as_user.value = image_uid
    elif image_user:
        answer.run_as_username = image_user
    if context.get("runAsGroup") is not None:
        answer.run_as_group.value = context["runAsGroup"]
    if (profile := _apparmor(pod, c, context.get("appArmorProfile"))) is not None:
        answer.apparmor.CopyFrom(profile)
    if context.get("seLinuxOptions"):
        answer.selinux_options.CopyFrom(_selinux(context["seLinuxOptions"]))
    if capabilities := context.get("capabilities"):
        answer.capabilities.add_capabilities.extend(capabilities.get("add") or [])
        answer.capabilities.drop_capabilities.extend(capabilities.get("drop") or [])
    if context.get("procMount") != "Unmasked":
        answer.masked_paths.extend(MASKED_PATHS)
        answer.readonly_paths.extend(READONLY_PATHS)
    return answer


def verify_non_root(pod: Obj, c: Obj, image_uid: int | None, image_user: str) -> None:
    """Raises SecurityError when the container must not run as root and would, or nobody can tell."""
    context = effective(pod, c)
    if not context.get("runAsNonRoot"):
        return
    user = context.get("runAsUser")
    where = f'(pod: "{p.show(pod)}", container: {c["name"]})'
    if user is not None:
        if user == 0:
            raise SecurityError(f"container's runAsUser breaks non-root policy {where}")
        return
    if image_uid == 0:
        raise SecurityError(f"container has runAsNonRoot and image will run as root {where}")
    if image_uid is None and image_user:
        raise SecurityError(
            f"container has runAsNonRoot and image has non-numeric user ({image_user}), "
            f"cannot verify user is non-root {where}"
        )
