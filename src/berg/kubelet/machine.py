"""Facts about this machine, read once: processors, memory, kernel, ids; and what changes: free memory, disks, pids.

Source: cadvisor machine info, pkg/kubelet/nodestatus/setters.go.
"""

from __future__ import annotations

import functools
import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path

GOARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
}


@dataclass(frozen=True, slots=True)
class Machine:
    cpus: int
    memory_bytes: int
    swap_bytes: int
    machine_id: str
    system_uuid: str
    boot_id: str
    kernel: str
    os_image: str
    architecture: str
    hugepages: dict[str, int]
    """`2Mi` → bytes reserved."""


def _read(*paths: str) -> str:
    for path in paths:
        try:
            if text := Path(path).read_text().strip():
                return text
        except OSError:
            continue
    return ""


def meminfo() -> dict[str, int]:
    found: dict[str, int] = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        found[name] = int(fields[0]) * (1024 if len(fields) > 1 else 1)
    return found


@functools.cache
def machine() -> Machine:
    memory = meminfo()
    release = dict(line.partition("=")[::2] for line in _read("/etc/os-release", "/usr/lib/os-release").splitlines())
    machine_id = _read("/etc/machine-id", "/var/lib/dbus/machine-id")
    return Machine(
        cpus=os.cpu_count() or 1,
        memory_bytes=memory.get("MemTotal", 0),
        swap_bytes=memory.get("SwapTotal", 0),
        machine_id=machine_id,
        system_uuid=_read("/sys/class/dmi/id/product_uuid", "/proc/device-tree/vm,uuid") or machine_id,
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=release.get("PRETTY_NAME", "").strip('"') or "Linux",
        architecture=GOARCH.get(platform.machine(), platform.machine()),
        hugepages=_hugepages(),
    )


def _hugepages() -> dict[str, int]:
    found = {}
    for directory in Path("/sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        kb = int(directory.name.removeprefix("hugepages-").removesuffix("kB"))
        name = f"{kb >> 20}Gi" if kb % (1 << 20) == 0 else f"{kb >> 10}Mi" if kb % 1024 == 0 else f"{kb}Ki"
        found[name] = int(_read(str(directory / "nr_hugepages")) or 0) * kb * 1024
    return found


@dataclass(frozen=True, slots=True)
class Disk:
    capacity_bytes: int
    available_bytes: int
    inodes: int
    inodes_free: int


def disk(path: str | Path) -> Disk:
    """Of the file system that holds `path`, or where it would be."""
    at = Path(path)
    while not at.exists():
        at = at.parent
    s = os.statvfs(at)
    return Disk(s.f_blocks * s.f_frsize, s.f_bavail * s.f_frsize, s.f_files, s.f_ffree)


def pids() -> tuple[int, int]:
    """(how many there can be, how many there are)."""
    limits = [int(x) for x in (_read("/proc/sys/kernel/pid_max"), _read("/proc/sys/kernel/threads-max")) if x]
    running = _read("/proc/loadavg").split()[3].split("/")[1] if _read("/proc/loadavg") else "0"
    return min(limits, default=0), int(running)


def node_ips(wanted: str = "") -> list[str]:
    """The address of the default route's interface (one of each family), or what was asked for."""
    if wanted:
        return [ip.strip() for ip in wanted.split(",") if ip.strip() and ip.strip() not in ("0.0.0.0", "::")]
    found = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as s:
                s.connect((target, 9))  # sends nothing: asks the routing table
                ip = s.getsockname()[0]
        except OSError:
            continue
        if not ip.startswith("fe80"):
            found.append(ip)
    return found[:1] or ["127.0.0.1"]


def cpu_seconds() -> float:
    """Processor time that the whole machine has used since it started."""
    fields = _read("/proc/stat").split("\n", 1)[0].split()[1:]
    if len(fields) < 8:
        return 0.0
    ticks = [int(x) for x in fields]
    busy = sum(ticks[:8]) - ticks[3] - ticks[4]  # without idle and waiting for disks
    return busy / os.sysconf("SC_CLK_TCK")
