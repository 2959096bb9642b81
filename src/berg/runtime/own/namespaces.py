"""A sandbox's namespaces: network, IPC and UTS, pinned in files, with no process in them.

    STATE/ns/SANDBOX/{net,ipc,uts}    the pins
    STATE/ns/SANDBOX/shm              the pod's /dev/shm

`make` and `remove` run in the launcher thread.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from berg.runtime.own import syscalls as sc
from berg.runtime.own.launcher import new_namespaces, pin_namespace, unpin

SHM_SIZE = 64 << 20

# What containers may do in a network of their own without any capability, as upstream's runtimes set it since
# containerd 2.0: listen on low ports, and ping.
NETWORK_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}

_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


class SysctlError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Pins:
    directory: str

    def path(self, kind: str) -> str:
        return os.path.join(self.directory, kind)

    @property
    def shm(self) -> str:
        return self.path("shm")

    def make(self, kinds: Sequence[str], hostname: str, sysctls: Mapping[str, str]) -> None:
        """Makes and pins namespaces of these kinds (`net`, `ipc`, `uts`). Raises OSError or SysctlError."""
        check_sysctls(sysctls, kinds)
        os.makedirs(self.directory, mode=0o711, exist_ok=True)
        if kinds:
            with new_namespaces(*kinds):
                for kind in kinds:
                    pin_namespace(kind, self.path(kind))
                if "uts" in kinds and hostname:
                    sc.sethostname(hostname)
                if "net" in kinds:
                    _loopback_up()
                    for name, value in NETWORK_SYSCTLS.items():
                        if name not in sysctls:
                            _write_sysctl(name, value, optional=True)
                for name, value in sysctls.items():
                    _write_sysctl(name, value)
        if "ipc" in kinds:
            os.mkdir(self.shm)
            options = f"mode=1777,size={SHM_SIZE}"
            sc.mount("shm", self.shm, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC, options)

    def remove(self) -> None:
        for kind in ("net", "ipc", "uts", "shm"):
            unpin(self.path(kind))
        for path in (self.shm, self.directory):
            try:
                os.rmdir(path)
            except OSError:
                pass


def check_sysctls(sysctls: Mapping[str, str], kinds: Sequence[str]) -> None:
    """Only what belongs to a namespace of the sandbox's own may be set: the rest is the node's."""
    for name in sysctls:
        dotted = name.replace("/", ".")
        if dotted.startswith("net."):
            allowed = "net" in kinds
        elif dotted.startswith(_IPC_SYSCTLS):
            allowed = "ipc" in kinds
        else:
            allowed = dotted in ("kernel.domainname",) and "uts" in kinds
        if not allowed or ".." in name:
            raise SysctlError(f"sysctl {name!r} is not in a namespace of the pod's own")


def _write_sysctl(name: str, value: str, *, optional: bool = False) -> None:
    path = "/proc/sys/" + (name if "/" in name else name.replace(".", "/"))
    try:
        with open(path, "w") as file:
            file.write(value)
    except OSError as error:
        if not optional:
            raise SysctlError(f"cannot set sysctl {name}={value}: {error.strerror}") from None


_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        name, flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", name, flags | _IFF_UP))
