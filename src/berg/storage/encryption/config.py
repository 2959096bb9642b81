"""Reading an EncryptionConfiguration (apiserver.config.k8s.io/v1): which resources, which providers, which keys.

A resource's own entry counts before that of its group, and that before the one of everything. Faults are told all at
once, with upstream's paths and words.

Source: k8s.io/apiserver pkg/apis/apiserver/validation/validation_encryption.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from berg.machinery.clock import Clock
from berg.machinery.status import FieldError, invalid_value, required
from berg.storage.encryption.kms import PREFIX as KMS_PREFIX
from berg.storage.encryption.kms import Kms
from berg.storage.encryption.providers import AesCbc, AesGcm, Chain, Identity, Prefixed, Provider
from berg.storage.encryption.secretbox import Secretbox

API_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1")
_KEYED: dict[str, tuple[bytes, type[AesGcm] | type[AesCbc] | type[Secretbox], tuple[int, ...], str]] = {
    "aesgcm": (b"k8s:enc:aesgcm:v1:", AesGcm, (16, 24, 32), "AES"),
    "aescbc": (b"k8s:enc:aescbc:v1:", AesCbc, (16, 24, 32), "AES"),
    "secretbox": (b"k8s:enc:secretbox:v1:", Secretbox, (32,), "Secretbox"),
}
_NOT_SERVED = ("apiserveripinfo", "serviceipallocations", "servicenodeportallocations")


class InvalidConfiguration(ValueError):
    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = list(errors)
        super().__init__("; ".join(map(str, self.errors)))


class ResourceTransformer:
    """The `Transformer` of one entry of the configuration."""

    def __init__(self, chain: Chain, kms: list[Kms]) -> None:
        self._chain = chain
        self._kms = kms

    def to_storage(self, key: bytes, value: bytes) -> bytes:
        return self._chain.encrypt(key, value)

    def from_storage(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        return self._chain.decrypt(key, data)

    async def prepare(self, values: Iterable[bytes]) -> None:
        for kms in self._kms:
            await kms.prepare(values)


class Encryption:
    """`clock` is for KMS plugins."""

    def __init__(self, config: dict[str, Any], clock: Clock | None = None) -> None:
        errors = validate(config)
        if errors:
            raise InvalidConfiguration(errors)
        self._kms: dict[str, Kms] = {}
        members: dict[str, list[Prefixed]] = {}
        for entry in config["resources"]:
            made = [self._provider(p, clock) for p in entry["providers"]]
            for resource in entry["resources"]:  # named again: the later providers are for reading
                members.setdefault(resource, []).extend(made)
        self._transformers = {resource: _transformer(of) for resource, of in members.items()}

    def _provider(self, provider: dict[str, Any], clock: Clock | None) -> Prefixed:
        (kind, body), *_ = provider.items()
        if kind == "identity":
            return Prefixed(b"", Identity())
        if kind == "kms":
            name = body["name"]
            kms = self._kms.get(name)
            if kms is None:
                timeout_s = seconds(body.get("timeout") or "3s")
                kms = self._kms[name] = Kms(name, body["endpoint"], timeout_s, clock)
            return Prefixed(KMS_PREFIX + name.encode() + b":", kms)
        prefix, make, _, title = _KEYED[kind]
        keys: list[tuple[str, Provider]] = [(k["name"], make(base64.b64decode(k["secret"]))) for k in body["keys"]]
        members = [Prefixed(name.encode() + b":", key) for name, key in keys]
        return Prefixed(prefix, Chain(members, f"no matching key was found for the provided {title} transformer"))

    def transformer(self, group: str, plural: str) -> ResourceTransformer | None:
        """None: not named in the configuration, stored in the clear."""
        for name in (f"{plural}.{group}" if group else plural, f"*.{group}", "*.*"):
            found = self._transformers.get(name)
            if found is not None:
                return found
        return None

    async def start(self) -> None:
        await asyncio.gather(*(kms.start() for kms in self._kms.values()))

    async def close(self) -> None:
        await asyncio.gather(*(kms.close() for kms in self._kms.values()))

    async def poll(self) -> None:
        """Asks every plugin how it is."""
        await asyncio.gather(*(kms.poll() for kms in self._kms.values()))

    def uses_plugins(self) -> bool:
        return bool(self._kms)

    def timeouts_s(self) -> float:
        """Of all plugins together."""
        return sum(kms.timeout_s for kms in self._kms.values())

    def problems(self) -> list[str]:
        """Why a plugin is not well, for `/healthz/kms-providers`; nothing: all are."""
        return [f"kms-provider-{i}: {kms.error}" for i, kms in enumerate(self._kms.values()) if kms.error]

    def on_rotated(self, call: Callable[[], None]) -> None:
        """`call` is called when a plugin has a new key."""
        for kms in self._kms.values():
            kms.rotated = call


def load(path: Path, clock: Clock | None = None) -> Encryption:
    """Raises InvalidConfiguration, OSError."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as e:
        raise InvalidConfiguration([invalid_value("", str(path), f"not YAML: {e}")]) from None
    return Encryption(config if isinstance(config, dict) else {}, clock)


def _transformer(members: list[Prefixed]) -> ResourceTransformer:
    plugins = [m.provider for m in members if isinstance(m.provider, Kms)]
    return ResourceTransformer(Chain(members, "no matching prefix found"), plugins)


def seconds(text: str) -> float:
    """Of a Go duration, as the configuration has it."""
    units = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError(f"time: invalid duration {text!r}")
    return sum(float(number) * units[unit] for number, unit in parts)


# -- validation


def validate(config: dict[str, Any]) -> list[FieldError]:
    if config.get("kind") != "EncryptionConfiguration" or config.get("apiVersion") not in API_VERSIONS:
        found = f"{config.get('apiVersion')}, Kind={config.get('kind')}"
        return [invalid_value("", found, "expected an EncryptionConfiguration of apiserver.config.k8s.io/v1")]
    entries = config.get("resources") or []
    if not entries:
        return [required("resources", "at least one resources is required")]
    errors: list[FieldError] = []
    names: set[str] = set()
    for i, entry in enumerate(entries):
        path = f"resources[{i}].resources"
        if not entry.get("resources"):
            errors.append(required(path, f"at least one {path} is required"))
        errors += _validate_resources(entry.get("resources") or [], path)
        path = f"resources[{i}].providers"
        if not entry.get("providers"):
            errors.append(required(path, f"at least one {path} is required"))
        for j, provider in enumerate(entry.get("providers") or []):
            errors += _validate_provider(provider, f"{path}[{j}]", names)
    return errors or _validate_masks(entries)


def _validate_masks(entries: list[dict[str, Any]]) -> list[FieldError]:
    """An entry for all of a group must come after those for its resources."""
    seen: set[str] = set()
    errors = []
    for i, entry in enumerate(entries):
        for resource in entry["resources"]:
            for wider in (f"*.{resource.partition('.')[2]}", "*.*"):
                if wider in seen:
                    told = f'resource "{resource}" is masked by earlier rule "{wider}"'
                    errors.append(invalid_value(f"resources[{i}].resources", resource, told))
            seen.add(resource)
    return errors


def _validate_resources(resources: list[str], path: str) -> list[FieldError]:
    errors = []
    masked = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they "
    for i, resource in enumerate(resources):
        at = f"{path}[{i}]"
        name, _, group = resource.partition(".")
        if resource != resource.lower():
            errors.append(invalid_value(at, resource, "resource name should not contain capital letters"))
        if resource == "*":
            text = "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
            errors.append(invalid_value(at, resource, text))
        if resource in _NOT_SERVED:
            errors.append(invalid_value(at, resource, "resources which do not have REST API/s cannot be encrypted"))
        if group == "events.k8s.io":
            text = "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in "
            errors.append(invalid_value(at, resource, text + "the config file"))
        if group == "extensions":
            text = "'extensions' group has been removed and cannot be used for encryption"
            errors.append(invalid_value(at, resource, text))
        if group == "*" and name != "*":
            text = "encrypting the same resource across groups is not supported"
            errors.append(invalid_value(at, resource, text))
        if resource in resources[:i]:
            errors.append(invalid_value(path, resources, "the same resource cannot be specified multiple times"))
    if len(resources) > 1:
        groups = {r.partition(".")[2] for r in resources if r.startswith("*.") and r != "*.*"}
        covered = any(r.partition(".")[2] in groups and not r.startswith("*.") for r in resources)
        if "*.*" in resources or covered:
            errors.append(invalid_value(path, resources, masked + "will be masked"))
    return errors


def _validate_provider(provider: Any, path: str, names: set[str]) -> list[FieldError]:
    kinds = [k for k in provider or {} if k in (*_KEYED, "kms", "identity")]
    if not kinds:
        text = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
        return [invalid_value(path, provider, text)]
    if len(kinds) > 1:
        text = "more than one provider specified in a single element, should split into different list elements"
        return [invalid_value(path, sorted(kinds), text)]
    kind = kinds[0]
    body = provider[kind] or {}
    if kind == "kms":
        return _validate_kms(body, f"{path}.kms", names)
    if kind in _KEYED:
        return _validate_keys(body.get("keys") or [], f"{path}.{kind}.keys", _KEYED[kind][2])
    return []


def _validate_keys(keys: list[dict[str, Any]], path: str, sizes: tuple[int, ...]) -> list[FieldError]:
    if not keys:
        return [required(path, "at least one keys is required")]
    errors = []
    for i, key in enumerate(keys):
        at = f"{path}[{i}]"
        if not key.get("name"):
            errors.append(required(f"{at}.name", "name is a mandatory field for a key"))
        if not key.get("secret"):
            errors.append(required(f"{at}.secret", "secret is a mandatory field for a key"))
            continue
        try:
            size = len(base64.b64decode(key["secret"], validate=True))
        except (binascii.Error, ValueError):
            errors.append(invalid_value(f"{at}.secret", "REDACTED", "secrets must be base64 encoded"))
            continue
        if size not in sizes:
            expected = f"[{' '.join(map(str, sizes))}]"
            text = f"secret is not of the expected length, got {size}, expected one of {expected}"
            errors.append(invalid_value(f"{at}.secret", "REDACTED", text))
    return errors


def _validate_kms(kms: dict[str, Any], path: str, names: set[str]) -> list[FieldError]:
    errors = []
    name, version = kms.get("name") or "", kms.get("apiVersion") or "v1"
    if not name:
        errors.append(required(f"{path}.name", "name is a mandatory field for a provider"))
    elif ":" in name:
        errors.append(invalid_value(f"{path}.name", name, f"invalid KMS provider name {name}, must not contain ':'"))
    elif name in names:
        text = f"duplicate KMS provider name {name}, names must be unique"
        errors.append(invalid_value(f"{path}.name", name, text))
    names.add(name)
    try:
        if seconds(kms.get("timeout") or "3s") <= 0:
            raise ValueError
    except ValueError:
        errors.append(invalid_value(f"{path}.timeout", kms["timeout"], "timeout should be a positive value"))
    endpoint = kms.get("endpoint") or ""
    scheme = urlsplit(endpoint).scheme
    if not endpoint:
        errors.append(invalid_value(f"{path}.endpoint", "", "endpoint is a mandatory field for a kms"))
    elif scheme != "unix":
        text = f'unsupported scheme "{scheme}" for KMS provider, only unix is supported'
        errors.append(invalid_value(f"{path}.endpoint", endpoint, text))
    if kms.get("cachesize") is not None and version != "v1":
        errors.append(invalid_value(f"{path}.cachesize", kms["cachesize"], "cachesize is not supported in v2"))
    if version == "v1":
        text = "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead."
        errors.append(invalid_value(f"{path}.apiVersion", version, text))
    elif version != "v2":
        text = f"unsupported apiVersion {version} for KMS provider, only v1 and v2 are supported"
        errors.append(invalid_value(f"{path}.apiVersion", version, text))
    return errors
