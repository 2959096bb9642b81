"""Cgroups of pods and of QoS classes: where they are, what they are limited to, and their removal.

    kubepods/                     all pods: the node's allocatable
      pod<uid>/                   Guaranteed
      burstable/pod<uid>/
      besteffort/pod<uid>/

The runtime makes the containers' own below the pod's. With cgroup v1 each controller has such a tree; only those
that set limits are made here (cpu, memory, pids), the others come with the containers, and all are removed.

Source: pkg/kubelet/cm/pod_container_manager_linux.go, qos_container_manager_linux.go, cgroup_manager_linux.go.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

from berg.kubelet import container_resources as cr
from berg.kubelet import pod as p
from berg.machinery.status import Obj

log = logging.getLogger(__name__)

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "memory", "pids")


def is_v2(root: Path = ROOT) -> bool:
    return (root / "cgroup.controllers").exists()


class CgroupManager:
    """Nothing is done when `enabled` is false (cgroupsPerQOS off, or no right to)."""

    def __init__(
        self,
        *,
        driver: str = "cgroupfs",
        cgroup_root: str = "",
        enabled: bool = True,
        mount: Path = ROOT,
        pids_limit: int = -1,
    ) -> None:
        self.driver = driver
        self.enabled = enabled
        self.v2 = is_v2(mount)
        self._mount = mount
        self._base = [x for x in cgroup_root.split("/") if x]
        self._pids_limit = pids_limit

    # -- names

    def _names(self, pod: Obj | None, qos: str) -> list[str]:
        names = [*self._base, "kubepods"]
        if qos != "Guaranteed":
            names.append(qos.lower())
        if pod is not None:
            names.append(f"pod{p.uid(pod)}")
        return names

    def _shown(self, names: list[str]) -> str:
        if self.driver != "systemd":
            return "/" + "/".join(names)
        path, prefix = "", ""
        for name in names:
            prefix = f"{prefix}-{name.replace('-', '_')}" if prefix else name.replace("-", "_")
            path += f"/{prefix}.slice"
        return path

    def parent(self, pod: Obj) -> str:
        """What the sandbox config says: the path, or for systemd only the slice."""
        if not self.enabled:
            return ""
        shown = self._shown(self._names(pod, p.qos_class(pod)))
        return shown.rsplit("/", 1)[-1] if self.driver == "systemd" else shown

    def _directories(self, names: list[str], controllers: tuple[str, ...] | None = None) -> list[tuple[str, Path]]:
        """(controller, directory); with v2 one directory for all."""
        below = self._shown(names).lstrip("/")
        if self.v2:
            return [("", self._mount / below)]
        chosen = controllers or tuple(d.name for d in self._mount.iterdir() if d.is_dir() and not d.is_symlink())
        return [(c, self._mount / c / below) for c in chosen if (self._mount / c).is_dir()]

    # -- what is done

    def start(self, allocatable_memory: int, allocatable_cpu_milli: int) -> None:
        """The trees of all pods and of the two lower classes."""
        if not self.enabled:
            return
        try:
            names = self._names(None, "Guaranteed")
            self._ensure(names)
            for qos in ("Burstable", "BestEffort"):
                self._ensure(self._names(None, qos))
        except OSError as e:
            log.warning("no cgroups for pods: %s", e)
            self.enabled = False
            return
        for where, file, value in (
            (names, "cpu.shares", cr.shares(allocatable_cpu_milli)),
            (names, "memory.limit_in_bytes", allocatable_memory),
            (self._names(None, "BestEffort"), "cpu.shares", cr.MIN_SHARES),
        ):
            try:
                self._set(where, file, value)
            except OSError as e:
                log.warning("%s of %s: %s", file, self._shown(where), e)

    def exists(self, pod: Obj) -> bool:
        if not self.enabled:
            return True
        names = self._names(pod, p.qos_class(pod))
        return all(d.is_dir() for _, d in self._directories(names, CONTROLLERS))

    def ensure(self, pod: Obj) -> None:
        """The pod's own, with its limits. Raises OSError."""
        if not self.enabled:
            return
        self._ensure(self._names(pod, p.qos_class(pod)))
        self.apply(pod)

    def resize(self, pod: Obj, widen: bool) -> None:
        """Before containers are resized limits may only become wider, after it they become what they are to be."""
        self.apply(pod, only_wider=widen)

    def apply(self, pod: Obj, *, only_wider: bool = False) -> None:
        """Sets the pod's limits. Raises OSError."""
        if not self.enabled:
            return
        names = self._names(pod, p.qos_class(pod))
        qos = p.qos_class(pod)
        request = cr.pod_requests(pod, "cpu") or (cr.pod_limits(pod, "cpu") if qos == "Guaranteed" else 0)
        self._set(names, "cpu.shares", cr.shares(request))
        limit = cr.pod_limits(pod, "cpu")
        if not only_wider or self._is_wider(names, "cpu.cfs_quota_us", cr.quota(limit)):
            self._set(names, "cpu.cfs_quota_us", cr.quota(limit) if limit else -1)
        memory = cr.pod_limits(pod, "memory") // 1000
        if not only_wider or self._is_wider(names, "memory.limit_in_bytes", memory):
            self._set(names, "memory.limit_in_bytes", memory if memory else -1)
        if self._pids_limit > 0:
            self._set(names, "pids.max", self._pids_limit)

    def _is_wider(self, names: list[str], file: str, value: int) -> bool:
        """Whether `value` (0 for no limit) is more than what is set now."""
        if self.v2:
            path = self._directories(names)[0][1] / _v2(file, 1)[0]
        else:
            path = self._directories(names, (file.partition(".")[0],))[0][1] / file
        now = path.read_text().split()[0]
        if now in ("max", "-1"):
            return False
        return value == 0 or value > int(now)

    def _ensure(self, names: list[str]) -> None:
        for _, directory in self._directories(names, CONTROLLERS):
            if self.v2:
                at = self._mount
                for part in directory.relative_to(self._mount).parts:
                    self._delegate(at)
                    at /= part
                    at.mkdir(exist_ok=True)
                self._delegate(at)
            else:
                directory.mkdir(parents=True, exist_ok=True)

    def _delegate(self, directory: Path) -> None:
        """Passes the controllers on to what is below."""
        control = directory / "cgroup.subtree_control"
        have = set(control.read_text().split())
        for name in (directory / "cgroup.controllers").read_text().split():
            if name not in have:
                try:
                    control.write_text(f"+{name}")
                except OSError as e:
                    log.debug("%s: +%s: %s", directory, name, e)

    def _set(self, names: list[str], file: str, value: int) -> None:
        """`file` in v1's words; v2's are derived."""
        if self.v2:
            file, text = _v2(file, value)
            targets = self._directories(names)
        else:
            text = str(value)
            targets = self._directories(names, (file.partition(".")[0],))
        for _, directory in targets:
            path = directory / file
            try:
                path.write_text(text)
            except FileNotFoundError:
                if directory.is_dir():
                    log.debug("%s is not there", path)
                else:
                    raise

    def remove(self, uid: str) -> None:
        """The pod's cgroups with all below, in whatever class. What still has processes stays and is reported."""
        if not self.enabled:
            return
        marker: Obj = {"metadata": {"uid": uid}}
        for qos in ("Guaranteed", "Burstable", "BestEffort"):
            for _, directory in self._directories(self._names(marker, qos)):
                if directory.is_dir():
                    _remove_tree(directory)

    def pods(self) -> set[str]:
        """UIDs that have a cgroup."""
        found: set[str] = set()
        if not self.enabled:
            return found
        for qos in ("Guaranteed", "Burstable", "BestEffort"):
            for _, directory in self._directories(self._names(None, qos), CONTROLLERS):
                if directory.is_dir():
                    for entry in directory.iterdir():
                        name = entry.name
                        if name.endswith(".slice"):
                            name = name.removesuffix(".slice").rsplit("-", 1)[-1].replace("_", "-")
                        if entry.is_dir() and name.startswith("pod"):
                            found.add(name.removeprefix("pod"))
        return found


def _v2(file: str, value: int) -> tuple[str, str]:
    match file:
        case "cpu.shares":
            # The curve of KEP-4205's fix: 2 → 1, 1024 → about 100, 262144 → 10000.
            import math

            shares = min(max(value, cr.MIN_SHARES), cr.MAX_SHARES)
            bits = math.log2(shares)
            exponent = (bits * bits + 125 * bits) / 612.0 - 7.0 / 34.0
            return "cpu.weight", str(min(max(math.ceil(10**exponent), 1), 10000))
        case "cpu.cfs_quota_us":
            return "cpu.max", f"{'max' if value < 0 else value} {cr.QUOTA_PERIOD_US}"
        case "memory.limit_in_bytes":
            return "memory.max", "max" if value < 0 else str(value)
    return file, str(value)


def _remove_tree(directory: Path) -> None:
    for parent, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(parent)
        except OSError as e:
            if e.errno not in (errno.ENOENT,):
                raise
