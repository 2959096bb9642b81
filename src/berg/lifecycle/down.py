"""`berg down`: nothing is left but, unless purged, the data.

Processes end first, in order; then what they kept in the kernel is taken away by the parts that made it (given in
as `cleaners`, because those packages lie beside this one). All of it works as well when every process was killed
before, or after a reboot.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Callable, Sequence

from berg.lifecycle import kubeconfig
from berg.lifecycle.errors import BadDataDir, LifecycleError
from berg.lifecycle.layout import Layout
from berg.lifecycle.registry import return_index, supervisor_of
from berg.lifecycle.remains import remove_tree
from berg.lifecycle.spec import ClusterSpec
from berg.lifecycle.supervisor import read_pid

Cleaner = Callable[[Layout, ClusterSpec], None]


def stop_processes(layout: Layout) -> None:
    """Ends the supervisor, which ends its processes; then any that lost theirs."""
    if pid := supervisor_of(layout.root):
        _end(pid, 60)
    for path in sorted((layout.run).glob("*.pid"), reverse=True):
        if pid := read_pid(path):
            _end(pid, 10)
        path.unlink(missing_ok=True)


def _end(pid: int, patience_s: float) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number, seconds in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 5.0)):
            signal.pidfd_send_signal(fd, number)
            if select.select([fd], [], [], seconds)[0]:
                return
        raise LifecycleError(f"process {pid} can't be ended", "Look at what it waits for: cat /proc/PID/stack")
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def down(layout: Layout, *, purge: bool, cleaners: Sequence[Cleaner]) -> None:
    """Raises NotThere for a cluster that never was, and BadDataDir when its spec can't be read, unless it is
    purged: then the directory goes, and what only the spec could tell of is left to the machine's next start.
    """
    if not supervisor_of(layout.root):  # what was deleted under a live cluster can still be ended
        layout.require()
    spec = None
    try:
        spec = ClusterSpec.read(layout.spec)
    except BadDataDir:
        if not purge:
            raise
    stop_processes(layout)
    if spec:
        for clean in cleaners:
            clean(layout, spec)
    shutil.rmtree(layout.run, ignore_errors=True)
    if purge:
        kubeconfig.remove(kubeconfig.user_path(), spec.context if spec else f"berg-{layout.root.name}")
        remove_tree(layout.root)
        if spec:
            return_index(layout.root, spec.index)
