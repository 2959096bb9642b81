"""What this machine has and lacks for real nodes, and how to get it.

Real containers need root, an OCI runtime, nftables or iptables, and a kernel with overlayfs and namespaces.
Where Berg is root on Debian or Ubuntu it installs the programs; elsewhere it says what to install.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from berg.lifecycle.errors import LifecycleError

LOOPBACK = "127.0.0.1"
_SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"))


@dataclass(frozen=True, slots=True)
class Need:
    """Any one of `programs` will do; `package` brings it."""

    programs: tuple[str, ...]
    package: str
    purpose: str


NEEDS = (
    Need(("crun", "runc"), "crun", "starts containers"),
    Need(("nft",), "nftables", "service and port rules"),
    Need(("mount",), "mount", "volumes"),
)


def find(program: str) -> str | None:
    return shutil.which(program, path=_SEARCH)


def missing() -> list[Need]:
    return [need for need in NEEDS if not any(find(p) for p in need.programs)]


def is_debian() -> bool:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return False
    return any(f"{key}={v}" in text.replace('"', "") for key in ("ID", "ID_LIKE") for v in ("debian", "ubuntu"))


def choose_runtime(wanted: str, containerd_socket: str, say: Callable[[str], None]) -> str:
    """`berg`, `containerd` or `sim` for what was asked (`auto` takes the first that works).

    Raises LifecycleError when what was named outright can't be had.
    """
    if wanted == "sim":
        return "sim"
    if wanted == "containerd":
        _need_root()
        if not Path(containerd_socket).is_socket():
            raise LifecycleError(f"no containerd at {containerd_socket}", "Start containerd, or use --runtime berg.")
        return "containerd"
    if os.geteuid() != 0:
        return _fall_back(wanted, "not root, and real containers need it", "Run it with sudo.", say)
    lacking = missing()
    if lacking and is_debian() and find("apt-get"):
        _install(lacking, say)
        lacking = missing()
    if lacking:
        names = ", ".join(n.package for n in lacking)
        return _fall_back(wanted, f"missing: {names}", f"Install {names}.", say)
    if "overlay" not in Path("/proc/filesystems").read_text():
        subprocess.run(["modprobe", "overlay"], capture_output=True, check=False)
        if "overlay" not in Path("/proc/filesystems").read_text():
            return _fall_back(wanted, "the kernel has no overlayfs", "Load the module overlay.", say)
    return "berg"


def _need_root() -> None:
    if os.geteuid() != 0:
        raise LifecycleError("real containers need root", "Run it with sudo, or use --runtime sim.")


def _fall_back(wanted: str, why: str, mend: str, say: Callable[[str], None]) -> str:
    if wanted == "berg":
        raise LifecycleError(f"Berg's runtime can't run here: {why}", f"{mend} Or use --runtime sim.")
    say(f"Simulated runtime: {why}. Pods will not run processes. {mend}")
    return "sim"


def _install(needs: list[Need], say: Callable[[str], None]) -> None:
    packages = [n.package for n in needs]
    say(f"Installing {', '.join(f'{n.package} ({n.purpose})' for n in needs)} with apt-get")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": _SEARCH}
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0:
        subprocess.run(["apt-get", "update", "-qq"], env=environment, capture_output=True, check=False)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            say(f"apt-get could not install them: {done.stderr.strip().splitlines()[-1:] or done.returncode}")


def address() -> str:
    """The machine's address as others see it: the source of its default route, else loopback.

    No packet is sent: connecting a datagram socket only asks the routing table.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # documentation's range: never on the link itself
            return str(probe.getsockname()[0])
        except OSError:
            return LOOPBACK


def hostname() -> str:
    """A node's name: the host's, made into a DNS-1123 subdomain."""
    name = socket.gethostname().lower().strip(".")
    return "".join(c if c.isalnum() or c in "-." else "-" for c in name).strip("-.") or "node"


def port_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def port_if_free(port: int) -> int:
    """For what is good to have and no reason not to start: 0 when somebody listens there."""
    return port if port_free(port) else 0


def free_port(preferred: int, taken: AbstractSet[int] = frozenset()) -> int:
    """`preferred` or the next one above it that nobody listens on."""
    port = preferred
    while port in taken or not port_free(port):
        port += 1
    return port
