"""From CRI's container config to the OCI runtime's `config.json`.

One function, `build`, reads from top to bottom: process, root, mounts, namespaces, what is hidden, devices. It decides
and touches nothing: what it needs of the machine comes in `Given`.

Source: OCI runtime specification 1.1; CRI ContainerConfig.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from berg.runtime.cri import Code, CRIError
from berg.runtime.own import seccomp
from berg.runtime.own.users import User

if TYPE_CHECKING:
    from berg.runtime.api import cri_pb2 as pb

Spec = dict[str, Any]

CAP_SYS_RESOURCE = 24


def _lowest_oom_score_adj() -> int:
    """Nobody may go below their own without CAP_SYS_RESOURCE, which a machine within a machine often lacks."""
    with open("/proc/self/status") as status:
        capable = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    if capable >> CAP_SYS_RESOURCE & 1:
        return -1000
    with open("/proc/self/oom_score_adj") as own:
        return int(own.read())


LOWEST_OOM_SCORE_ADJ = _lowest_oom_score_adj()

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)

# In the kernel's order: the number of a capability is its place.
CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ]
)

# What a container may open without asking: c 1:3 null, 1:5 zero, 1:7 full, 1:8 random, 1:9 urandom, 5:0 tty,
# 5:1 console, 5:2 ptmx, 136:* pts, 10:200 tun; and it may make any node.
DEFAULT_DEVICES = (
    ["c *:* m", "b *:* m"]
    + [f"c 1:{minor} rwm" for minor in (3, 5, 7, 8, 9)]
    + ["c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm", "c 10:200 rwm"]
)

_MOUNT_OPTIONS = frozenset(["nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime", "sync"])

NOFILE = resource.getrlimit(resource.RLIMIT_NOFILE)
"""How many files Berg itself was given. It raises its own soft limit; containers get what it had at first."""

_PROPAGATION = {0: "rprivate", 1: "rslave", 2: "rshared"}


@dataclass(frozen=True, slots=True)
class Image:
    """The part of an image's configuration that a container starts from."""

    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Sequence[str] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    volumes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Given:
    rootfs: str
    image: Image
    user: User
    sandbox: pb.PodSandboxConfig
    namespaces: Mapping[str, str]
    """Kind (`network`, `ipc`, `uts`, `pid`) to the path to join. A kind that is not named is the host's, except `pid`,
    which is the container's own when it maps to the empty string."""
    hostname: str
    etc: Mapping[str, str]
    """Files of the sandbox by their name below /etc: `hostname`, `resolv.conf`."""
    shm: str
    cgroup_path: str
    """Empty: the runtime keeps its hands off cgroups."""
    cgroup_mounts: Mapping[str, str]
    """Version 1: name below /sys/fs/cgroup to the container's own group there. Empty: the runtime mounts version 2."""
    hooks: Mapping[str, Sequence[Mapping[str, Any]]]
    image_mounts: Mapping[str, str]
    """Container path to the directory of a mounted image (image volumes)."""
    volumes: Mapping[str, str]
    """Container path to the directory behind a volume that the image declares."""


def build(config: pb.ContainerConfig, given: Given) -> Spec:
    """Raises CRIError when the config cannot be run."""
    security = config.linux.security_context
    capabilities = _capabilities(security)
    spec: Spec = {
        "ociVersion": "1.0.2",
        "process": _process(config, given, capabilities),
        "root": {"path": given.rootfs, "readonly": security.readonly_rootfs},
        "mounts": _mounts(config, given),
        "annotations": dict(config.annotations),
        "linux": {
            "namespaces": _namespaces(given),
            "maskedPaths": [] if security.privileged else list(security.masked_paths),
            "readonlyPaths": [] if security.privileged else list(security.readonly_paths),
            "devices": _devices(config),
        },
    }
    if given.hooks:
        spec["hooks"] = dict(given.hooks)
    if given.cgroup_path:
        spec["linux"]["cgroupsPath"] = given.cgroup_path
        spec["linux"]["resources"] = {"devices": _device_rules_oci(device_rules(config))}
    if any(mount.propagation == 2 for mount in config.mounts):
        spec["linux"]["rootfsPropagation"] = "shared"
    elif any(mount.propagation == 1 for mount in config.mounts):
        spec["linux"]["rootfsPropagation"] = "slave"
    profile = _seccomp(security, capabilities["bounding"])
    if profile is not None:
        spec["linux"]["seccomp"] = profile
    return spec


def arguments(config: pb.ContainerConfig, image: Image) -> list[str]:
    """Kubernetes' command replaces the image's entrypoint and its cmd, args alone replace its cmd."""
    if config.command:
        found = [*config.command, *config.args]
    else:
        found = [*image.entrypoint, *(config.args or image.cmd)]
    if not found:
        raise CRIError(Code.INVALID_ARGUMENT, "failed to generate container spec: no command specified")
    return found


def environment(config: pb.ContainerConfig, image: Image, hostname: str, home: str) -> list[str]:
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname, "HOME": home}
    if config.tty:
        env["TERM"] = "xterm"
    for entry in image.env:
        key, _, value = entry.partition("=")
        env[key] = value
    for pair in config.envs:
        env[pair.key] = pair.value.decode(errors="replace")
    return [f"{key}={value}" for key, value in env.items()]


def _process(config: pb.ContainerConfig, given: Given, capabilities: dict[str, list[str]]) -> Spec:
    security = config.linux.security_context
    process: Spec = {
        "terminal": config.tty,
        "args": arguments(config, given.image),
        "env": environment(config, given.image, given.hostname, given.user.home),
        "cwd": config.working_dir or given.image.working_dir or "/",
        "user": {
            "uid": given.user.uid,
            "gid": given.user.gid,
            "additionalGids": list(given.user.groups),
        },
        "capabilities": capabilities,
        "noNewPrivileges": security.no_new_privs,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": NOFILE[0], "hard": NOFILE[1]}],
        "oomScoreAdj": max(config.linux.resources.oom_score_adj, LOWEST_OOM_SCORE_ADJ),
    }
    if os.path.exists("/sys/kernel/security/apparmor"):
        profile = security.apparmor.localhost_ref if security.apparmor.profile_type == 2 else ""
        if profile:
            process["apparmorProfile"] = profile.removeprefix("localhost/")
    label = security.selinux_options
    parts = [label.user, label.role, label.type, label.level]
    if any(parts) and os.path.exists("/sys/fs/selinux/enforce"):
        process["selinuxLabel"] = ":".join(parts)
    return process


def _capabilities(security: pb.LinuxContainerSecurityContext) -> dict[str, list[str]]:
    if security.privileged:
        held = _known()
    else:
        add = _names(security.capabilities.add_capabilities)
        drop = _names(security.capabilities.drop_capabilities)
        base = () if "CAP_ALL" in drop else _known() if "CAP_ALL" in add else DEFAULT_CAPABILITIES
        wanted = ({*base, *add} - drop) - {"CAP_ALL"}
        if unknown := wanted - set(CAPABILITIES):
            raise CRIError(Code.INVALID_ARGUMENT, f'unknown capability "{sorted(unknown)[0]}" to add')
        held = [name for name in CAPABILITIES if name in wanted]
    ambient = [name for name in held if name in _names(security.capabilities.add_ambient_capabilities)]
    result = {"bounding": list(held), "effective": list(held), "permitted": list(held)}
    if ambient:
        result |= {"inheritable": ambient, "ambient": ambient}
    return result


def _names(capabilities: Sequence[str]) -> set[str]:
    upper = (name.upper() for name in capabilities)
    return {name if name.startswith("CAP_") else f"CAP_{name}" for name in upper}


def _known() -> list[str]:
    """The capabilities that this kernel knows and Berg itself holds."""
    with open("/proc/self/status") as file:
        bounding = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))
    return [name for number, name in enumerate(CAPABILITIES) if bounding >> number & 1]


def _mounts(config: pb.ContainerConfig, given: Given) -> list[Spec]:
    security = config.linux.security_context
    write = "rw" if security.privileged else "ro"
    mounts: list[Spec] = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", write),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", write),
        _mount("/dev/shm", "bind", given.shm, "rbind", "nosuid", "noexec", "nodev", "rw"),
    ]
    if not given.namespaces.get("network"):
        # sysfs belongs to a network namespace; on the host's it may only be bound.
        mounts[4] = _mount("/sys", "none", "/sys", "rbind", "nosuid", "noexec", "nodev", write)
    if given.cgroup_mounts:
        # What stands at the roots is the node's; a container sees its own groups there, as if they were the roots.
        mounts[5:6] = [
            _mount("/sys/fs/cgroup", "tmpfs", "tmpfs", "nosuid", "noexec", "nodev", "relatime", "mode=755", "size=64k"),
            *(
                _mount(f"/sys/fs/cgroup/{name}", "bind", path, "bind", "nosuid", "noexec", "nodev", "relatime", write)
                for name, path in given.cgroup_mounts.items()
            ),
        ]
    wanted = {os.path.normpath(mount.container_path) for mount in config.mounts}
    mounts = [mount for mount in mounts if mount["destination"] not in wanted]
    readonly = "ro" if security.readonly_rootfs else "rw"
    mounts += [
        _mount(f"/etc/{name}", "bind", path, "rbind", "rprivate", readonly)
        for name, path in given.etc.items()
        if f"/etc/{name}" not in wanted
    ]
    mounts += [
        _mount(path, "bind", source, "rbind", "rprivate", "rw")
        for path, source in given.volumes.items()
        if os.path.normpath(path) not in wanted
    ]
    for mount in sorted(config.mounts, key=lambda mount: os.path.normpath(mount.container_path).count("/")):
        mounts.append(_cri_mount(mount, given))
    return mounts


def _cri_mount(mount: pb.Mount, given: Given) -> Spec:
    source = given.image_mounts.get(mount.container_path) or os.path.realpath(mount.host_path)
    readonly = mount.readonly or bool(mount.image.image)
    options = ["rbind", _PROPAGATION[mount.propagation], "ro" if readonly else "rw"]
    if mount.recursive_read_only:
        if not mount.readonly or mount.propagation != 0:
            raise CRIError(Code.INVALID_ARGUMENT, "recursive read-only mounts need readonly and private propagation")
        options.append("rro")
    options += [option for option in mount.mount_options if option in _MOUNT_OPTIONS]
    return _mount(mount.container_path, "bind", source, *options)


def _mount(destination: str, kind: str, source: str, *options: str) -> Spec:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _namespaces(given: Given) -> list[Spec]:
    result: list[Spec] = [{"type": "mount"}]
    for kind, path in given.namespaces.items():
        result.append({"type": kind, "path": path} if path else {"type": kind})
    return result


def _devices(config: pb.ContainerConfig) -> list[Spec]:
    if config.linux.security_context.privileged:
        return list(_host_devices())
    found: list[Spec] = []
    for device in config.devices:
        found += _device_nodes(device.host_path, device.container_path)
    return found


def device_rules(config: pb.ContainerConfig) -> list[str] | None:
    """What the device cgroup allows, in version 1's words; None: everything."""
    if config.linux.security_context.privileged:
        return None
    rules = list(DEFAULT_DEVICES)
    for device in config.devices:
        access = device.permissions or "rwm"
        for node in _device_nodes(device.host_path, device.container_path):
            rules.append(f"{node['type']} {node['major']}:{node['minor']} {access}")
    return rules


def _device_rules_oci(rules: list[str] | None) -> list[Spec]:
    if rules is None:
        return [{"allow": True, "access": "rwm"}]
    result: list[Spec] = [{"allow": False, "access": "rwm"}]
    for rule in rules:
        kind, numbers, access = rule.split()
        major, minor = numbers.split(":")
        entry: Spec = {"allow": True, "type": kind, "access": access}
        entry |= {name: int(value) for name, value in (("major", major), ("minor", minor)) if value != "*"}
        result.append(entry)
    return result


def _device_nodes(host_path: str, container_path: str) -> list[Spec]:
    """A device, or all below a directory. Raises CRIError when there is none."""
    real = os.path.realpath(host_path)
    try:
        status = os.stat(real)
    except OSError as error:
        raise CRIError(Code.INVALID_ARGUMENT, f"lstat {host_path}: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        found: list[Spec] = []
        for folder, _, names in os.walk(real):
            for name in names:
                path = os.path.join(folder, name)
                if _is_device(path):
                    inner = os.path.relpath(path, real)
                    found += _device_nodes(path, os.path.join(container_path or host_path, inner))
        return found
    if not _is_device(real):
        raise CRIError(Code.INVALID_ARGUMENT, f"not a device node: {host_path}")
    return [
        {
            "path": container_path or host_path,
            "type": "b" if stat.S_ISBLK(status.st_mode) else "c",
            "major": os.major(status.st_rdev),
            "minor": os.minor(status.st_rdev),
            "fileMode": stat.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
        }
    ]


def _is_device(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


_OWN = frozenset(
    (
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "console",
        "ptmx",
        "pts",
        "shm",
        "mqueue",
        "fd",
        "stdin",
        "stdout",
        "stderr",
        "core",
    )
)


def _host_devices() -> list[Spec]:
    found: list[Spec] = []
    for entry in os.scandir("/dev"):
        if entry.name in _OWN or entry.is_symlink():
            continue
        if entry.is_dir() or _is_device(entry.path):
            found += _device_nodes(entry.path, entry.path)
    return found


def _seccomp(security: pb.LinuxContainerSecurityContext, held: Sequence[str]) -> Spec | None:
    if security.privileged:
        return None
    profile_type, reference = 1, ""  # unconfined, unless said otherwise
    if security.HasField("seccomp"):
        profile_type, reference = security.seccomp.profile_type, security.seccomp.localhost_ref
    if profile_type == 0:
        return seccomp.default(held)
    if profile_type == 1:
        return None
    try:
        return seccomp.localhost(reference.removeprefix("localhost/"), held)
    except (OSError, ValueError) as error:
        text = f'failed to generate container spec: cannot load seccomp profile "{reference}": {error}'
        raise CRIError(Code.INVALID_ARGUMENT, text) from None
