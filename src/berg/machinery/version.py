"""`/version`: which Kubernetes this server is compatible with."""

from __future__ import annotations

import platform
from functools import cache

import berg
from berg.machinery.status import Obj

MAJOR, MINOR, PATCH = "1", "37", "0"
GIT_VERSION = f"v{MAJOR}.{MINOR}.{PATCH}+berg"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


@cache
def info() -> Obj:
    machine = platform.machine()
    return {
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": str(int(MINOR) - 1),
        "gitVersion": GIT_VERSION,
        "gitCommit": f"berg-{berg.__version__}",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": f"python{platform.python_version()}",
        "platform": f"{platform.system().lower()}/{_MACHINES.get(machine, machine)}",
    }
