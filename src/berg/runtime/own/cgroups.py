"""Cgroups of containers: made by us, on version 1 (also hybrid) and version 2.

A container's group is `PARENT/ID`; its limits, its counters and what counts as out of memory are read there, also
after the container has ended. On version 1 Berg writes everything and moves the container's first process in (from
a hook, before the container's program starts), because crun refuses hybrid hosts and a runtime removes the group,
with its OOM counter, before anyone could look. On version 2 the device filter is a BPF program, so the runtime gets
a group of its own within ours (`PARENT/ID/c`), with the same limits, which the container sees as its root; the
counters of ours include it.

A parent is a path below the cgroup root, as CRI gives it: `/kubepods/burstable/podUID`, or in systemd's spelling
`kubepods-burstable-podUID.slice`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from berg.runtime.api import cri_pb2 as pb

ROOT = "/sys/fs/cgroup"
INNER = "c"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    version: int
    mounts: Mapping[str, str] = field(default_factory=dict)
    """Version 1: where each controller is mounted. `cpu` and `cpuacct` may be one mount."""
    hidden: str = ""
    """Version 1, hybrid: the version 2 mount that the OCI runtime must not see, or empty."""

    def directories(self, path: str) -> Iterator[str]:
        """Every directory that `path` names, each once."""
        relative = path.lstrip("/")
        if self.version == 2:
            yield os.path.join(ROOT, relative)
            return
        for mountpoint in dict.fromkeys(os.path.realpath(mount) for mount in self.mounts.values()):
            yield os.path.join(mountpoint, relative)

    def views(self, path: str) -> dict[str, str]:
        """Version 1: how the group is called below a container's /sys/fs/cgroup, and its directory."""
        relative = path.lstrip("/")
        found = {os.path.basename(mount): os.path.join(mount, relative) for mount in self.mounts.values()}
        return found | {name: os.path.join(mount, relative) for name, mount in self.mounts.items()}

    def directory(self, path: str, controller: str) -> str | None:
        relative = path.lstrip("/")
        if self.version == 2:
            return os.path.join(ROOT, relative)
        mountpoint = self.mounts.get(controller)
        return os.path.join(mountpoint, relative) if mountpoint else None


@lru_cache(maxsize=1)
def hierarchy() -> Hierarchy:
    mounts: dict[str, str] = {}
    unified = ""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fstype, _, options = right.split(" ", 2)
            mountpoint = left.split(" ")[4]
            if fstype == "cgroup2":
                unified = mountpoint
            elif fstype == "cgroup":
                for option in options.strip().split(","):
                    if option in _V1_CONTROLLERS or option.startswith("name="):
                        mounts[option.removeprefix("name=")] = mountpoint
    if unified == ROOT or not mounts:
        return Hierarchy(2)
    return Hierarchy(1, mounts, unified)


_V1_CONTROLLERS = frozenset(
    [
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "hugetlb",
        "net_cls",
        "net_prio",
        "perf_event",
        "rdma",
        "misc",
    ]
)


def expand(parent: str) -> str:
    """A path for what CRI calls cgroup_parent: systemd's slices are spelled out, as systemd nests them."""
    if not parent.endswith(".slice"):
        return "/" + parent.strip("/")
    name = parent.rsplit("/", 1)[-1].removesuffix(".slice")
    parts = name.split("-")
    return "/" + "/".join("-".join(parts[: end + 1]) + ".slice" for end in range(len(parts)))


def create(path: str) -> None:
    here = hierarchy()
    for directory in here.directories(path):
        if here.version == 2:
            _delegate(directory)
        os.makedirs(directory, exist_ok=True)
        if here.version == 1 and os.path.exists(os.path.join(directory, "cpuset.cpus")):
            _inherit_cpuset(directory)


def _delegate(directory: str) -> None:
    """Version 2: switches every controller on for the children, from the root down."""
    current = ROOT
    for part in os.path.relpath(directory, ROOT).split("/"):
        os.makedirs(current, exist_ok=True)
        available = _read(current, "cgroup.controllers").split()
        for controller in available:
            _write(current, "cgroup.subtree_control", f"+{controller}", optional=True)
        current = os.path.join(current, part)


def _inherit_cpuset(directory: str) -> None:
    """Version 1 starts a cpuset empty, and no process may enter an empty one."""
    parent = os.path.dirname(directory)
    for name in ("cpuset.cpus", "cpuset.mems"):
        if _read(directory, name).strip():
            continue
        if not _read(parent, name).strip():
            _inherit_cpuset(parent)
        _write(directory, name, _read(parent, name).strip())


def apply(path: str, resources: pb.LinuxContainerResources) -> None:
    """Sets the limits that are named in `resources`; zero and empty mean "as it is"."""
    if hierarchy().version == 2:
        directory = os.path.join(ROOT, path.lstrip("/"))
        _apply_v2(directory, resources)
        if os.path.isdir(os.path.join(directory, INNER)):
            _apply_v2(os.path.join(directory, INNER), resources)  # the one that the container sees as its own
    else:
        _apply_v1(path, resources)


def _apply_v1(path: str, r: pb.LinuxContainerResources) -> None:
    here = hierarchy()

    def put(controller: str, name: str, value: object) -> None:
        directory = here.directory(path, controller)
        if directory is not None:
            _write(directory, f"{controller}.{name}", str(value))

    if r.cpu_shares:
        put("cpu", "shares", r.cpu_shares)
    if r.cpu_period:
        put("cpu", "cfs_period_us", r.cpu_period)
    if r.cpu_quota:
        put("cpu", "cfs_quota_us", r.cpu_quota)
    if r.cpuset_cpus:
        put("cpuset", "cpus", r.cpuset_cpus)
    if r.cpuset_mems:
        put("cpuset", "mems", r.cpuset_mems)
    if r.memory_limit_in_bytes:
        _limit_memory_v1(put, r.memory_limit_in_bytes, r.memory_swap_limit_in_bytes)
    for limit in r.hugepage_limits:
        put("hugetlb", f"{limit.page_size}.limit_in_bytes", limit.limit)


def _limit_memory_v1(put, memory: int, swap: int) -> None:  # type: ignore[no-untyped-def]
    """Memory may not exceed memory+swap at any moment, so growing and shrinking need opposite orders."""
    try:
        put("memory", "limit_in_bytes", memory)
        if swap:
            put("memory", "memsw.limit_in_bytes", swap)
    except OSError:
        put("memory", "memsw.limit_in_bytes", swap or memory)
        put("memory", "limit_in_bytes", memory)


def _apply_v2(directory: str, r: pb.LinuxContainerResources) -> None:
    if r.cpu_shares:
        _write(directory, "cpu.weight", str(weight_of(r.cpu_shares)))
    if r.cpu_quota:
        _write(directory, "cpu.max", f"{r.cpu_quota if r.cpu_quota > 0 else 'max'} {r.cpu_period or 100000}")
    if r.cpuset_cpus:
        _write(directory, "cpuset.cpus", r.cpuset_cpus)
    if r.cpuset_mems:
        _write(directory, "cpuset.mems", r.cpuset_mems)
    if r.memory_limit_in_bytes:
        memory = r.memory_limit_in_bytes
        _write(directory, "memory.max", str(memory) if memory > 0 else "max")
        swap = r.memory_swap_limit_in_bytes
        if swap:
            # CRI counts memory and swap together, version 2 counts them apart.
            _write(directory, "memory.swap.max", str(max(0, swap - memory)) if swap > 0 else "max", optional=True)
    for limit in r.hugepage_limits:
        _write(directory, f"hugetlb.{limit.page_size}.max", str(limit.limit), optional=True)
    for name, value in r.unified.items():
        if "/" in name or "." not in name:
            raise ValueError(f'not a cgroup file: "{name}"')
        _write(directory, name, value)


def weight_of(shares: int) -> int:
    """cpu.shares 2…262144 to cpu.weight 1…10000, on the curve that runtimes share since crun 1.23 and runc 1.3.2:
    1024 shares are weight 100."""
    from math import ceil, log2

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    exponent = log2(shares)
    return ceil(10 ** ((exponent * exponent + 125 * exponent) / 612.0 - 7.0 / 34.0))


def allow_devices(path: str, rules: Iterable[str] | None) -> None:
    """Version 1: only these devices (`c 1:3 rwm`), or all when None. On version 2 the runtime does this."""
    directory = hierarchy().directory(path, "devices")
    if hierarchy().version == 2 or directory is None:
        return
    if rules is None:
        _write(directory, "devices.allow", "a")
        return
    _write(directory, "devices.deny", "a")
    for rule in rules:
        _write(directory, "devices.allow", rule)


def processes(path: str) -> set[int]:
    found: set[int] = set()
    for directory in hierarchy().directories(path):
        for folder, _, files in os.walk(directory):
            if "cgroup.procs" in files:
                found.update(map(int, _read(folder, "cgroup.procs").split()))
    return found


def kill(path: str) -> None:
    """Kills what still runs in the group; gives up after a second (a process in the kernel cannot be waited for)."""
    for attempt in range(100):
        left = processes(path)
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.001 if attempt < 20 else 0.01)


def remove(path: str) -> None:
    """Removes the group with its children. Gone already is fine; busy raises OSError."""
    for directory in hierarchy().directories(path):
        for folder, _, _ in os.walk(directory, topdown=False):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass


def oom_kills(path: str) -> int:
    """How often the kernel killed in this group for want of memory."""
    directory = hierarchy().directory(path, "memory")
    if directory is None:
        return 0
    name = "memory.events" if hierarchy().version == 2 else "memory.oom_control"
    return _table(_read(directory, name)).get("oom_kill", 0)


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of one group. Bytes and nanoseconds; None: the controller is not there."""

    cpu_ns: int | None
    memory_usage: int | None
    memory_working_set: int | None
    memory_available: int | None
    memory_rss: int | None
    page_faults: int | None
    major_page_faults: int | None
    swap_usage: int | None
    swap_available: int | None
    processes: int | None


def usage(path: str) -> Usage:
    return _usage_v2(path) if hierarchy().version == 2 else _usage_v1(path)


_UNLIMITED = 1 << 60


def _usage_v1(path: str) -> Usage:
    here = hierarchy()
    cpu = here.directory(path, "cpuacct")
    memory = here.directory(path, "memory")
    pids = here.directory(path, "pids")
    stat = _table(_read(memory, "memory.stat")) if memory else {}
    used = _number(memory, "memory.usage_in_bytes")
    limit = _number(memory, "memory.limit_in_bytes")
    both = _number(memory, "memory.memsw.usage_in_bytes")
    working = None if used is None else max(0, used - stat.get("total_inactive_file", 0))
    return Usage(
        cpu_ns=_number(cpu, "cpuacct.usage"),
        memory_usage=used,
        memory_working_set=working,
        memory_available=_available(limit, working),
        memory_rss=stat.get("total_rss"),
        page_faults=stat.get("total_pgfault"),
        major_page_faults=stat.get("total_pgmajfault"),
        swap_usage=None if both is None or used is None else max(0, both - used),
        swap_available=None,
        processes=_number(pids, "pids.current"),
    )


def _usage_v2(path: str) -> Usage:
    directory = os.path.join(ROOT, path.lstrip("/"))
    stat = _table(_read(directory, "memory.stat"))
    used = _number(directory, "memory.current")
    limit = _number(directory, "memory.max")
    working = None if used is None else max(0, used - stat.get("inactive_file", 0))
    cpu = _table(_read(directory, "cpu.stat")).get("usage_usec")
    return Usage(
        cpu_ns=None if cpu is None else cpu * 1000,
        memory_usage=used,
        memory_working_set=working,
        memory_available=_available(limit, working),
        memory_rss=stat.get("anon"),
        page_faults=stat.get("pgfault"),
        major_page_faults=stat.get("pgmajfault"),
        swap_usage=_number(directory, "memory.swap.current"),
        swap_available=None,
        processes=_number(directory, "pids.current"),
    )


def _available(limit: int | None, working: int | None) -> int | None:
    if limit is None or working is None or limit >= _UNLIMITED:
        return None
    return max(0, limit - working)


def _number(directory: str | None, name: str) -> int | None:
    text = _read(directory, name).strip() if directory else ""
    return int(text) if text.isdigit() else None


def _table(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _read(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, name)) as file:
            return file.read()
    except OSError:
        return ""


def _write(directory: str, name: str, value: str, *, optional: bool = False) -> None:
    try:
        fd = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        if not optional:
            raise OSError(error.errno, f'{error.strerror}: "{value}" to {name}', directory) from None
