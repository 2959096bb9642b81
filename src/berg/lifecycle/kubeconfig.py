"""Kubeconfig files: made for components, and merged into the user's own without touching what is theirs."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from berg.lifecycle.errors import LifecycleError
from berg.machinery.private import write_private

if TYPE_CHECKING:
    from berg.machinery.pki import KeyPair

Config = dict[str, Any]

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def client_config(context: str, server: str, authority: bytes, pair: KeyPair) -> Config:
    """One cluster, one user, one context, all called `context`; certificates embedded."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": context, "cluster": {"server": server, "certificate-authority-data": _base64(authority)}}
        ],
        "users": [
            {
                "name": context,
                "user": {
                    "client-certificate-data": _base64(pair.certificate),
                    "client-key-data": _base64(pair.key),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def write_config(path: Path, config: Config) -> None:
    write_private(path, yaml.dump(config, Dumper=_DUMPER, sort_keys=False).encode())


def user_path() -> Path:
    """The file kubectl writes to: the first of $KUBECONFIG, else ~/.kube/config."""
    first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(first) if first else Path.home() / ".kube" / "config"


def merge(path: Path, config: Config) -> None:
    """Adds the cluster, user and context of `config` to the file and makes the context the current one."""
    merged = _load(path)
    for part in ("clusters", "users", "contexts"):
        fresh = {entry["name"]: entry for entry in config[part]}
        kept = [entry for entry in merged.get(part) or [] if entry.get("name") not in fresh]
        merged[part] = kept + list(fresh.values())
    merged["current-context"] = config["current-context"]
    write_config(path, merged)


def remove(path: Path, context: str) -> None:
    """Takes out what `merge` put in. A file that is not there is fine."""
    if not path.exists():
        return
    config = _load(path)
    for part in ("clusters", "users", "contexts"):
        config[part] = [entry for entry in config.get(part) or [] if entry.get("name") != context]
    if config.get("current-context") == context:
        config["current-context"] = ""
    write_config(path, config)


def _load(path: Path) -> Config:
    empty: Config = {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    if not path.exists():
        return empty
    try:
        config = read(path)
    except (OSError, yaml.YAMLError) as e:
        raise LifecycleError(
            f"{path} can't be read as a kubeconfig: {e}",
            "Repair it, or let the cluster's context go elsewhere with --kubeconfig FILE.",
        ) from e
    return config or empty


def read(path: Path) -> Config:
    """Raises OSError, YAMLError."""
    found: Config = yaml.load(path.read_text(), Loader=_LOADER)
    return found
