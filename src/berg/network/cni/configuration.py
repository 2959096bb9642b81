"""Network configurations as they lie in /etc/cni/net.d: the first one by name counts.

Source: CNI specification 1.1, section 1 (network configuration format).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

SUFFIXES = (".conflist", ".conf", ".json")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")


class BadConfiguration(Exception):
    pass


@dataclass(frozen=True, slots=True)
class NetworkConfiguration:
    name: str
    version: str
    plugins: tuple[Mapping[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False

    def at_least(self, major: int, minor: int) -> bool:
        """Whether this version of the specification has what came with `major.minor`."""
        parts = [int(part) if part.isdigit() else 0 for part in self.version.split(".")]
        return (parts + [0, 0])[:2] >= [major, minor]


def first(directory: str) -> NetworkConfiguration:
    """The configuration that counts. Raises BadConfiguration, also when there is none."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIXES))
    except OSError as error:
        raise BadConfiguration(f"no network config found in {directory}: {error.strerror}") from error
    trouble = f"no network config found in {directory}"
    for name in names:
        try:
            return load(os.path.join(directory, name))
        except BadConfiguration as error:
            trouble = str(error)  # the next one may do, as upstream's runtimes have it
    raise BadConfiguration(f"cni plugin not initialized: {trouble}")


def load(path: str) -> NetworkConfiguration:
    """Raises BadConfiguration."""
    try:
        with open(path, "rb") as file:
            written = orjson.loads(file.read())
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"{path}: {error}") from error
    return parse(written, path)


def parse(written: Any, where: str) -> NetworkConfiguration:
    """A list of plugins, or the older form with just one. Raises BadConfiguration."""
    if not isinstance(written, dict):
        raise BadConfiguration(f"{where}: not a JSON object")
    if "plugins" not in written and "type" in written:
        written = {key: written[key] for key in ("cniVersion", "name") if key in written} | {"plugins": [written]}
    name, plugins = written.get("name"), written.get("plugins")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadConfiguration(f"{where}: the network has no usable name")
    if not isinstance(plugins, list) or not plugins:
        raise BadConfiguration(f"{where}: no plugins")
    for plugin in plugins:
        kind = plugin.get("type") if isinstance(plugin, dict) else None
        if not isinstance(kind, str) or not kind or "/" in kind or kind in (".", ".."):
            raise BadConfiguration(f"{where}: a plugin has no usable type")
    return NetworkConfiguration(
        name=name,
        version=_version(written, where),
        plugins=tuple(plugins),
        disable_check=_flag(written.get("disableCheck")),
        disable_gc=_flag(written.get("disableGC")),
    )


def _version(written: Mapping[str, Any], where: str) -> str:
    """Since 1.1 a list may name several versions; the highest that we know is spoken."""
    version = written.get("cniVersion") or "0.1.0"
    offered = [other for other in written.get("cniVersions") or () if isinstance(other, str)]
    known = [other for other in offered if other in ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")]
    if not isinstance(version, str):
        raise BadConfiguration(f"{where}: cniVersion is not a string")
    return max([version, *known], key=lambda text: [int(part) for part in text.split(".") if part.isdigit()])


def _flag(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")
