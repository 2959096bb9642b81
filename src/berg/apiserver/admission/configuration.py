"""The file that configures admission plugins: `AdmissionConfiguration`, plugins' own configuration in it or beside it.

Source: k8s.io/apiserver pkg/admission/config.go.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from berg.machinery.status import Obj

_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1alpha1", "apiserver.k8s.io/v1alpha1")


class BadConfiguration(ValueError):
    """The file cannot be used."""


def load(path: str) -> dict[str, Obj]:
    """Plugin → its configuration. Raises BadConfiguration."""
    if not path:
        return {}
    body = _read(Path(path))
    if body.get("kind") != "AdmissionConfiguration" or body.get("apiVersion") not in _VERSIONS:
        raise BadConfiguration(f"{path} is no AdmissionConfiguration")
    found: dict[str, Obj] = {}
    for plugin in body.get("plugins") or ():
        if plugin.get("configuration"):
            found[plugin["name"]] = plugin["configuration"]
        elif plugin.get("path"):
            found[plugin["name"]] = _read(Path(path).parent / plugin["path"])
    return found


def _read(path: Path) -> Obj:
    from berg.machinery.codec import yaml

    try:
        body: Any = yaml.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        raise BadConfiguration(f"unable to read admission control configuration from {path} [{e}]") from None
    if not isinstance(body, dict):
        raise BadConfiguration(f"{path} holds no object")
    return body
