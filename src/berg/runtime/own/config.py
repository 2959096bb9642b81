"""Where the runtime keeps things and which programs it uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OwnConfig:
    root: str
    """What outlives a reboot: images, writable layers, records."""
    state: str
    """What a reboot ends: pinned namespaces, pipes, the OCI runtime's state."""
    handlers: Mapping[str, str] = field(default_factory=dict)
    """RuntimeClass handler to the path of an OCI runtime; the empty name is the default. Empty: what is found."""
    default_cgroup_parent: str = "/berg"
    log_size_limit: int = 16 << 20
    """The most that ExecSync gives back of each stream, bytes (upstream's runtimes have the same bound)."""
    streaming_host: str = "127.0.0.1"
    streaming_port: int = 0

    def runtimes(self) -> dict[str, str]:
        if self.handlers:
            return dict(self.handlers)
        found = {name: path for name in ("crun", "runc") if (path := find_program(name))}
        for name in ("crun", "runc"):
            if name in found:
                found.setdefault("", found[name])
        return found

    def under_root(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def under_state(self, *parts: str) -> str:
        return os.path.join(self.state, *parts)


def find_program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
