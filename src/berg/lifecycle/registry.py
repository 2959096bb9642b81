"""The clusters of this machine: found by their directories."""

from __future__ import annotations

import re
from pathlib import Path

from berg.lifecycle.errors import BadDataDir
from berg.lifecycle.layout import default_root
from berg.lifecycle.spec import ClusterSpec
from berg.lifecycle.supervisor import process_of, read_pid

_BRIDGE = re.compile(r"berg(\d+)")


def clusters() -> dict[str, Path]:
    """Name → directory of every cluster in the default place."""
    root = default_root()
    if not root.is_dir():
        return {}
    return {d.name: d for d in sorted(root.iterdir()) if (d / "spec.json").exists()}


def free_index() -> int:
    """The lowest number that no cluster here has; it chooses address ranges. 0–99.

    A cluster kept under another root shows by its bridge.
    """
    used = {int(m[1]) for p in Path("/sys/class/net").glob("berg*") if (m := _BRIDGE.fullmatch(p.name))}
    for directory in clusters().values():
        try:
            used.add(ClusterSpec.read(directory / "spec.json").index)
        except BadDataDir:
            continue
    return next(i for i in range(100) if i not in used)


def supervisor_of(root: Path) -> int | None:
    """Also of a cluster whose `run/` somebody deleted."""
    return read_pid(root / "run" / "supervisor.pid") or process_of("berg.lifecycle.supervisor", str(root))
