"""What the runtime knows of its sandboxes and containers, in memory and on disk.

A record is the CRI config it was made from (`config.pb`, written once) and a small `state.json` that is replaced as a
whole when the state changes. A restarted runtime reads all of them; a directory without a readable state is the rest
of something that was interrupted before anyone was told its ID, and is removed.

Times are nanoseconds since 1970, as CRI has them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import orjson

if TYPE_CHECKING:
    from berg.runtime.api import cri_pb2 as pb


@dataclass(slots=True)
class SandboxState:
    created_at: int
    ready: bool = True
    boot_id: str = ""
    handler: str = ""
    ips: list[str] = field(default_factory=list)
    network: bool = False
    """A pod network was set up and must be taken down."""
    pause_pid: int = 0
    pause_start: int = 0
    cgroup_parent: str = ""


@dataclass(slots=True)
class ContainerState:
    sandbox_id: str
    image_id: str
    created_at: int
    boot_id: str = ""
    state: str = "created"
    """`created`, `running`, `exited` (or `unknown`, after a loss)."""
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    pid: int = 0
    pid_start: int = 0
    """The process's start time in clock ticks: with the pid it names one process for good."""
    monitor_pid: int = 0
    monitor_start: int = 0
    uid: int = 0
    gid: int = 0
    groups: list[int] = field(default_factory=list)
    cgroup: str = ""
    stop_signal: str = ""
    oom_kills: int = 0


@dataclass(slots=True)
class Sandbox:
    id: str
    config: pb.PodSandboxConfig
    state: SandboxState


@dataclass(slots=True)
class Container:
    id: str
    config: pb.ContainerConfig
    state: ContainerState


R = TypeVar("R", Sandbox, Container)


def new_id() -> str:
    return secrets.token_hex(32)


class Records(Generic[R]):
    def __init__(self, root: str, record: Callable[[str, Any, Any], R], config: type, state: type) -> None:
        self.root = root
        # Replaced, never changed: it is read on the event loop while threads create and remove.
        self.all: dict[str, R] = {}
        self._lock = threading.Lock()
        self._record: Callable[[str, Any, Any], R] = record
        self._config = config
        self._state = state
        self._fields = [field.name for field in fields(state)]

    def directory(self, id: str) -> str:
        return os.path.join(self.root, id)

    def find(self, prefix: str) -> R | None:
        """By ID, or by the beginning of one when it is the only such, as crictl's users type it."""
        if prefix in self.all:
            return self.all[prefix]
        if not prefix:
            return None
        matches = [record for id, record in self.all.items() if id.startswith(prefix)]
        return matches[0] if len(matches) == 1 else None

    def load(self) -> None:
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        for id in os.listdir(self.root):
            directory = self.directory(id)
            try:
                config = self._config()
                with open(os.path.join(directory, "config.pb"), "rb") as file:
                    config.ParseFromString(file.read())
                with open(os.path.join(directory, "state.json"), "rb") as file:
                    stored = orjson.loads(file.read())
                state = self._state(**{key: stored[key] for key in self._fields if key in stored})
            except Exception:
                shutil.rmtree(directory, ignore_errors=True)
                continue
            self.all[id] = self._record(id, config, state)

    def add(self, record: R) -> None:
        os.makedirs(self.directory(record.id), mode=0o700, exist_ok=True)
        self._write(record.id, "config.pb", record.config.SerializeToString())
        self.save(record)
        with self._lock:
            self.all = {**self.all, record.id: record}

    def rewrite(self, record: R) -> None:
        """Also the config, for the rare call that changes it."""
        self._write(record.id, "config.pb", record.config.SerializeToString())
        self.save(record)

    def save(self, record: R) -> None:
        self._write(record.id, "state.json", orjson.dumps(asdict(record.state)))

    def remove(self, id: str) -> None:
        with self._lock:
            self.all = {other: record for other, record in self.all.items() if other != id}
        # The state goes first: a crash half way leaves a directory that the next start clears away.
        try:
            os.unlink(os.path.join(self.directory(id), "state.json"))
        except FileNotFoundError:
            pass
        shutil.rmtree(self.directory(id), ignore_errors=True)

    def _write(self, id: str, name: str, data: bytes) -> None:
        path = os.path.join(self.directory(id), name)
        with open(path + ".new", "wb") as file:
            file.write(data)
        os.replace(path + ".new", path)


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
