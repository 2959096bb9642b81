"""Where a cluster keeps its things. Everything is below one directory, `/var/lib/berg/NAME` for root.

spec.json            what the cluster was asked to be (ClusterSpec)
pki/                 authorities, certificates, the service-account key
*.kubeconfig         one for each component and `admin`
store/               the API's data
node/NAME/           what one node keeps: pods, images, containers, addresses
logs/                one file for each component
run/                 process ids, sockets; nothing here outlives a reboot's meaning
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from berg.lifecycle.errors import LifecycleError, NotThere

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


def default_root() -> Path:
    """`$BERG_HOME`, else the system's place for root and the user's for others."""
    if home := os.environ.get("BERG_HOME"):
        return Path(home)
    return machine_root()


def machine_root() -> Path:
    """The one place that all of a user's clusters on this machine know, whatever `$BERG_HOME` says."""
    if os.geteuid() == 0:
        return Path("/var/lib/berg")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "berg"


@dataclass(frozen=True, slots=True)
class Layout:
    root: Path

    @classmethod
    def of(cls, name: str, data_dir: str | None = None) -> Layout:
        if not _NAME.fullmatch(name):
            raise LifecycleError(
                f"{name!r} can't be a cluster's name", "Use up to 32 lower-case letters, digits and '-'."
            )
        return cls(Path(data_dir).absolute() if data_dir else default_root() / name)

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        return self.root / "run"

    def node(self, name: str) -> Path:
        return self.root / "node" / name

    def kubeconfig(self, who: str) -> Path:
        return self.root / f"{who}.kubeconfig"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def make(self) -> None:
        for directory in (self.root, self.pki, self.store, self.logs, self.run):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700 if directory in (self.pki, self.store) else 0o755)

    def require(self) -> Layout:
        """Itself. Raises NotThere when no cluster was ever made here."""
        if not self.spec.exists():
            raise NotThere(f"there is no cluster in {self.root}", "Make one with: berg up")
        return self
