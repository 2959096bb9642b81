"""One run of an OCI runtime: the mounts that a container starts in, the command line, the error it gave.

ROOT/containers/ID/config.json   the bundle
ROOT/containers/ID/rootfs        where the root file system is mounted, in the monitor's own mount namespace only
ROOT/containers/ID/upper, work   what the container writes
ROOT/containers/ID/start.log     what the OCI runtime complained of
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from berg.runtime.own import cgroups
from berg.runtime.own import syscalls as sc
from berg.runtime.own.launcher import new_namespaces
from berg.runtime.own.monitor import Spawned, Streams, spawn
from berg.runtime.own.rootfs import Rootfs

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

# Version 1 cgroups: the container's first process is moved in here, before its program starts. Standard input holds
# the state of the container in JSON; the arguments are the groups' cgroup.procs files.
_JOIN = (
    'read -r state; pid=${state#*\\"pid\\":}; pid=${pid# }; pid=${pid%%[!0-9]*}; '
    'for group; do echo "$pid" >"$group" || exit 1; done'
)

# The same for a process that an exec starts: the shell joins and becomes the OCI runtime.
_JOIN_SELF = 'while [ "$1" != -- ]; do echo $$ >"$1" || exit 126; shift; done; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Bundle:
    directory: str

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    @property
    def rootfs(self) -> str:
        return self.path("rootfs")

    def load_rootfs(self) -> Rootfs:
        return Rootfs.load(self.path("mounts.json"))

    def error(self) -> str:
        with open(self.path("config.json"), "rb") as file:
            program = orjson.loads(file.read())["process"]["args"][0]
        return oci_error(self.path("start.log"), program) or "the OCI runtime ended without a word"


@dataclass(frozen=True, slots=True)
class OCIRuntime:
    program: str
    state: str

    @property
    def is_crun(self) -> bool:
        return os.path.basename(self.program) == "crun"

    @property
    def keeps_off_cgroups(self) -> bool:
        """Whether it leaves cgroups to us; else it makes a group of its own, which we put within ours."""
        return self.is_crun and cgroups.hierarchy().version == 1

    def command(self, *arguments: str, log: str = "") -> list[str]:
        found = [self.program, "--root", self.state]
        if self.keeps_off_cgroups:
            found.append("--cgroup-manager=disabled")
        elif self.is_crun:
            found.append("--cgroup-manager=cgroupfs")
        if log:
            found += ["--log", log]
        return [*found, *arguments]


def oci_error(path: str, program: str) -> str:
    """What the OCI runtime complained of, in words that upstream's users know; empty when it said nothing."""
    try:
        with open(path, errors="replace") as file:
            lines = file.read().strip().splitlines()
    except FileNotFoundError:
        lines = []
    if lines and re.search(r"opening file `.*/status['`]: No such file", lines[-1]):
        return "cannot exec in a stopped container"
    text = re.sub(r"^(.*level=error msg=)?\"?|\"$", "", lines[-1] if lines else "")
    if text.startswith("open executable: "):
        return f'exec: "{program}": {text.removeprefix("open executable: ").lower()}'
    return re.sub(
        r"executable file `([^`']*)['`] not found in \$PATH(: No such file or directory)?",
        r'exec: "\1": executable file not found in $PATH',
        text,
    )


def join_hook(cgroup: str) -> dict[str, list[dict[str, object]]]:
    """The hook that moves a starting container into its group, where that is ours to do."""
    if cgroups.hierarchy().version == 2:
        return {}
    groups = [f"{directory}/cgroup.procs" for directory in cgroups.hierarchy().directories(cgroup)]
    return {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", _JOIN, "join", *groups]}]}


def joined(cgroup: str, command: Sequence[str]) -> list[str]:
    """`command`, run within the group where that is ours to do."""
    if cgroups.hierarchy().version == 2:
        return list(command)
    groups = [f"{directory}/cgroup.procs" for directory in cgroups.hierarchy().directories(cgroup)]
    return ["/bin/sh", "-c", _JOIN_SELF, "join", *groups, "--", *command]


def hide_hybrid() -> None:
    """crun refuses a host that has controllers on both cgroup versions; so it does not get to see the second. In a
    mount namespace of our own, and with no way back to the host's."""
    hidden = cgroups.hierarchy().hidden
    if hidden:
        sc.mount("", os.path.dirname(hidden), flags=sc.MS_REC | sc.MS_PRIVATE)
        sc.umount(hidden, sc.MNT_DETACH)


def launch(
    bundle: Bundle,
    rootfs: Rootfs,
    layers_directory: str,
    monitor: str,
    streams: Streams,
    exit_file: str,
    command: Sequence[str],
    *,
    mounts_go_out: bool = False,
) -> Spawned:
    """Mounts and spawns; for the launcher thread. `mounts_go_out`: the container has a volume with bidirectional
    propagation, so the host must stay a peer, and sees the root file system too."""
    with new_namespaces("mnt"):
        if not mounts_go_out:
            sc.mount("", "/", flags=sc.MS_REC | sc.MS_SLAVE)
        hide_hybrid()
        rootfs.mount(bundle.rootfs, layers_directory)
        return spawn(monitor, streams, exit_file, command, ENVIRONMENT)
