"""Credentials for pulling an image: from the pod's imagePullSecrets and the node's own docker configuration.

A registry key is a host, with or without port and path; the host may hold `*` in its labels. The longest match
comes first, and each is tried in turn.

Source: pkg/credentialprovider/keyring.go, secrets/secrets.go.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from berg.machinery.status import Obj


@dataclass(frozen=True, slots=True)
class Credential:
    registry: str
    username: str = ""
    password: str = ""
    identity_token: str = ""


def from_secret(secret: Obj) -> list[Credential]:
    """What a secret of one of the two docker types holds; a broken one holds nothing."""
    data = secret.get("data") or {}
    try:
        if secret.get("type") == "kubernetes.io/dockerconfigjson":
            return _entries(orjson.loads(base64.b64decode(data.get(".dockerconfigjson", ""))).get("auths") or {})
        if secret.get("type") == "kubernetes.io/dockercfg":
            return _entries(orjson.loads(base64.b64decode(data.get(".dockercfg", ""))))
    except (ValueError, AttributeError, binascii.Error):
        return []
    return []


def from_files(paths: Iterable[Path]) -> list[Credential]:
    """The node's own: the first file that is there."""
    for path in paths:
        try:
            document = orjson.loads(path.read_bytes())
            return _entries(document.get("auths") or {})
        except (OSError, ValueError, AttributeError):
            continue
    return []


def _entries(auths: dict[str, Any]) -> list[Credential]:
    found = []
    for registry, entry in auths.items():
        if not isinstance(entry, dict):
            continue
        username, password = entry.get("username") or "", entry.get("password") or ""
        if auth := entry.get("auth"):
            try:
                username, _, password = base64.b64decode(auth).decode().partition(":")
                password = password.rstrip("\0")
            except (ValueError, binascii.Error):
                continue
        found.append(Credential(_strip(registry), username, password, entry.get("identitytoken") or ""))
    return found


def _strip(registry: str) -> str:
    """`https://index.docker.io/v1/` is known as `index.docker.io`."""
    text = registry.split("://", 1)[-1].rstrip("/")
    host, slash, path = text.partition("/")
    return host if path in ("v1", "v2") or not slash else f"{host}/{path}"


def lookup(image: str, credentials: Iterable[Credential]) -> list[Credential]:
    """Those that match the repository of `image` (a normalised name), the most specific first."""
    repository = repository_of(image)
    matching = [c for c in credentials if _matches(c.registry, repository)]
    return sorted(matching, key=lambda c: c.registry, reverse=True)


def _matches(pattern: str, repository: str) -> bool:
    host, _, path = pattern.partition("/")
    target_host, _, target_path = repository.partition("/")
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = "docker.io"
    labels, target_labels = host.split("."), target_host.split(".")
    if len(labels) != len(target_labels):
        return False
    if not all(fnmatch.fnmatchcase(t, g) for t, g in zip(target_labels, labels, strict=True)):
        return False
    return target_path.startswith(path)


def repository_of(image: str) -> str:
    """`nginx:1` → `docker.io/library/nginx`."""
    name = image.partition("@")[0]
    head, slash, tail = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        host, path = head, tail
    else:
        host, path = "docker.io", name if slash else f"library/{name}"
    last = path.rsplit("/", 1)[-1]
    if ":" in last:
        path = path[: path.rindex(":")]
    return f"{host}/{path}"
