"""Installs what the tests need beside Python packages: the system programs of real nodes, and programs that judge.

Runs before the tests, in `make test` and in CI. Where it may not install (not root, not Debian) it says what is
missing; the tests that need it then skip and say so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# program → Debian package
PROGRAMS = {
    "crun": "crun",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "iptables": "iptables",
    "busybox": "busybox-static",
    "containerd": "containerd",
    "etcdctl": "etcd-client",
    "etcd": "etcd-server",
    "docker-registry": "docker-registry",
    "redis-server": "redis-server",
    "nginx": "nginx-light",
    "node": "nodejs",
    "npm": "npm",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def missing() -> list[str]:
    return [package for program, package in PROGRAMS.items() if shutil.which(program, path=SEARCH) is None]


JAVASCRIPT = "@kubernetes/client-node@1.4.0"
MODULES = Path(__file__).parent.parent / ".venv" / "node"


def javascript() -> None:
    """The official JavaScript client, beside the Python packages."""
    if (MODULES / JAVASCRIPT.rpartition("@")[2]).exists() or not shutil.which("npm", path=SEARCH):
        return
    MODULES.mkdir(parents=True, exist_ok=True)
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional", "--prefer-offline", "--no-package-lock"]
    subprocess.run(["npm", "install", "--loglevel=error", *quiet, "--prefix", str(MODULES), JAVASCRIPT], check=True)
    (MODULES / JAVASCRIPT.rpartition("@")[2]).touch()


def main() -> int:
    code = system()
    javascript()
    return code


def system() -> int:
    packages = missing()
    if not packages:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"The tests want these Debian packages too: {' '.join(packages)}", file=sys.stderr)
        return 0
    print(f"Installing for the tests: {' '.join(packages)}", flush=True)
    # A package's service must not start: the tests start what they need themselves.
    policy = "/usr/sbin/policy-rc.d"
    made = not os.path.exists(policy)
    if made:
        with open(policy, "w") as f:
            f.write("#!/bin/sh\nexit 101\n")
        os.chmod(policy, 0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "PATH": SEARCH}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    try:
        quiet = {"env": environment, "stdout": subprocess.DEVNULL}
        if subprocess.run(install, **quiet, check=False).returncode != 0:  # type: ignore[call-overload]
            subprocess.run(["apt-get", "update", "-qq"], **quiet, check=True)  # type: ignore[call-overload]
            subprocess.run(install, **quiet, check=True)  # type: ignore[call-overload]
    finally:
        if made:
            os.unlink(policy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
