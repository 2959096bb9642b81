"""What every component's metrics tell of itself: its process, its build, and the families that it has.

Source: prometheus/client_golang collectors, k8s.io/component-base metrics.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from berg.machinery.metrics import Registry
from berg.machinery.status import Obj

_STARTED = time.time()
_PROC = Path("/proc/self")
_BUILD = ("major", "minor", "git_version", "git_commit", "git_tree_state", "build_date", "go_version", "compiler",
          "platform")  # fmt: skip


def describe(registry: Registry, build: Obj, component: str) -> None:
    """`build`: as `/version` tells it."""
    for name, help, read in (
        ("process_open_fds", "Open file descriptors.", lambda: len(os.listdir(_PROC / "fd"))),
        ("process_max_fds", "Most that may be open.", lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        ("process_virtual_memory_bytes", "Virtual memory.", lambda: _pages(0)),
        ("process_virtual_memory_max_bytes", "Most there may be of it.", _most_memory),
        ("process_resident_memory_bytes", "Resident memory.", lambda: _pages(1)),
        ("process_start_time_seconds", "When the process started, since the epoch.", lambda: _STARTED),
    ):
        registry.gauge(name, help, (), lambda read=read: [((), read())])  # type: ignore[misc]
    for name, help, total in (
        ("process_cpu_seconds_total", "User and system time.", _cpu_s),
        ("process_network_receive_bytes_total", "What came in over the network.", lambda: _network("InOctets")),
        ("process_network_transmit_bytes_total", "What went out over the network.", lambda: _network("OutOctets")),
    ):
        registry.total(name, help, (), lambda total=total: [((), total())])  # type: ignore[misc]
    values = tuple(str(build.get(_camel(name), "")) for name in _BUILD)
    help = "[BETA] A metric of 1 with the version in its labels."
    registry.gauge("kubernetes_build_info", help, _BUILD, lambda: [(values, 1)])
    kube = "{}.{}".format(build["major"], build["minor"])
    least = f"{build['major']}.{build.get('minCompatibilityMinor') or build['minor']}"
    registry.gauge(
        "version_info",
        "[ALPHA] Which versions the component is, behaves as, and is compatible with.",
        ("binary", "component", "emulation", "min_compat"),
        lambda: [((kube, component, kube, least), 1)],
    )
    registry.total(
        "registered_metrics_total",
        "[BETA] Families, by what is promised about their names.",
        ("stability_level", "deprecated_version"),
        lambda: [((level, ""), count) for (level,), count in registry.levels()],
    )
    disabled = "[BETA] Families that were switched off."
    registry.total("disabled_metrics_total", disabled, (), lambda: [((), len(registry.disabled))])


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(map(str.capitalize, rest))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _pages(which: int) -> int:
    return int((_PROC / "statm").read_text().split()[which]) * resource.getpagesize()


def _most_memory() -> float:
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    return float(2**64 - 1 if most == resource.RLIM_INFINITY else most)


def _network(which: str) -> int:
    """Of the process's network namespace."""
    return next(_netstat(which), 0)


def _netstat(which: str) -> Iterator[int]:
    lines = (_PROC / "net/netstat").read_text().splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        for name, value in zip(names.split(), values.split(), strict=False):
            if name == which:
                yield int(value)
