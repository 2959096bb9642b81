"""The files of ConfigMap, Secret, downward API and projected volumes: from objects to `path → File`.

Fetching is asynchronous, putting together is plain. A missing object or key raises `VolumeError` unless it is
optional.

Source: pkg/volume/configmap, secret, downwardapi, projected.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from berg.kubelet import pod as p
from berg.kubelet.downward import DownwardError, PodFacts, field_value, resource_value
from berg.kubelet.env import Objects
from berg.kubelet.volumes import ownership
from berg.kubelet.volumes.atomic import File
from berg.machinery.status import ApiError, Obj

DEFAULT_MODE = 0o644


class VolumeError(Exception):
    """The text ends the FailedMount event."""


@dataclass(slots=True)
class Context:
    """What the content of a volume is made of."""

    pod: Obj
    objects: Objects
    token: Callable[[Obj, Obj], Awaitable[str]]
    """(pod, the serviceAccountToken source) → a valid token; raises ApiError."""
    trust_bundle: Callable[[Obj], Awaitable[str]]
    """A clusterTrustBundle source → PEM; raises VolumeError."""
    facts: PodFacts
    certificate: Callable[[Obj, str, int, Obj], Awaitable[tuple[bytes, bytes]]] | None = None
    """(pod, volume, number of the source, the podCertificate source) → key and chain, PEM; raises VolumeError."""


async def of_volume(volume: Obj, context: Context) -> dict[str, File]:
    """Raises VolumeError, or ApiError when the API could not be asked."""
    if (source := volume.get("configMap")) is not None:
        return await _object("ConfigMap", source.get("name", ""), source, _mode(source), context)
    if (source := volume.get("secret")) is not None:
        return await _object("Secret", source.get("secretName", ""), source, _mode(source), context)
    if (source := volume.get("downwardAPI")) is not None:
        return _downward(source, _mode(source), context)
    source = volume["projected"]
    return await _projected(volume.get("name", ""), source, _mode(source), context)


def _mode(source: Obj) -> int:
    mode = source.get("defaultMode")
    return DEFAULT_MODE if mode is None else int(mode)


async def _projected(volume: str, source: Obj, mode: int, context: Context) -> dict[str, File]:
    files: dict[str, File] = {}
    errors: list[str] = []
    for index, part in enumerate(source.get("sources") or ()):
        try:
            if (one := part.get("configMap")) is not None:
                files.update(await _object("ConfigMap", one.get("name", ""), one, mode, context))
            elif (one := part.get("secret")) is not None:
                files.update(await _object("Secret", one.get("name", ""), one, mode, context))
            elif (one := part.get("downwardAPI")) is not None:
                files.update(_downward(one, mode, context))
            elif (one := part.get("serviceAccountToken")) is not None:
                files[one["path"]] = await _token(one, mode, context)
            elif (one := part.get("clusterTrustBundle")) is not None:
                text = await context.trust_bundle(one)
                files[one["path"]] = File(text.encode(), mode)
            elif (one := part.get("podCertificate")) is not None:
                files.update(await _certificate(volume, index, one, mode, context))
        except VolumeError as e:
            errors.append(str(e))
    if errors:
        raise VolumeError(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")
    return files


async def _certificate(volume: str, index: int, source: Obj, mode: int, context: Context) -> dict[str, File]:
    assert context.certificate is not None
    key, chain = await context.certificate(context.pod, volume, index, source)
    user, mode = _owned(mode, context)
    wanted = (("credentialBundlePath", key + chain), ("keyPath", key), ("certificateChainPath", chain))
    return {source[path]: File(data, mode, user) for path, data in wanted if source.get(path)}


def _owned(mode: int, context: Context) -> tuple[int | None, int]:
    """Whose a secret file is, and its mode: where the pod says who it runs as, nobody else's."""
    user, group = ownership.single_user(context.pod), ownership.group_of(context.pod)
    return user, mode if user is None and group is None else 0o600


async def _token(source: Obj, mode: int, context: Context) -> File:
    user, mode = _owned(mode, context)
    try:
        token = await context.token(context.pod, source)
    except ApiError as e:
        raise VolumeError(f"failed to fetch token: {e.message}") from e
    return File(token.encode(), mode, user)


async def _object(kind: str, name: str, source: Obj, mode: int, context: Context) -> dict[str, File]:
    optional = bool(source.get("optional"))
    namespace = p.namespace(context.pod)
    try:
        obj = await context.objects.get(kind, namespace, name)
    except ApiError as e:
        if e.code == 404 and optional:
            return {}
        raise VolumeError(e.message) from e
    data: dict[str, bytes] = {}
    if kind == "Secret":
        data = {k: base64.b64decode(v) for k, v in (obj.get("data") or {}).items()}
    else:
        data = {k: v.encode() for k, v in (obj.get("data") or {}).items()}
        data.update({k: base64.b64decode(v) for k, v in (obj.get("binaryData") or {}).items()})
    items = source.get("items") or []
    if not items:
        return {k: File(v, mode) for k, v in data.items()}
    files: dict[str, File] = {}
    for item in items:
        if item["key"] not in data:
            if optional:
                continue
            raise VolumeError(
                f"configmap references non-existent config key: {item['key']}"
                if kind == "ConfigMap"
                else f"references non-existent secret key: {item['key']}"
            )
        own = item.get("mode")
        files[item["path"]] = File(data[item["key"]], mode if own is None else int(own))
    return files


def _downward(source: Obj, mode: int, context: Context) -> dict[str, File]:
    files: dict[str, File] = {}
    for item in source.get("items") or ():
        own = item.get("mode")
        try:
            if item.get("fieldRef"):
                text = field_value(context.pod, item["fieldRef"]["fieldPath"], context.facts)
            else:
                ref = item["resourceFieldRef"]
                text = resource_value(context.pod, {"name": ""}, ref, context.facts)
        except DownwardError as e:
            raise VolumeError(str(e)) from e
        files[item["path"]] = File(text.encode(), mode if own is None else int(own))
    return files
