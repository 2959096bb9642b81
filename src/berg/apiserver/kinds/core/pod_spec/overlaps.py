"""Files of one volume that would lie upon each other: a warning.

Source: kubernetes pkg/api/pod warningsForOverlappingVirtualPaths.
"""

from __future__ import annotations

from collections.abc import Iterator

from berg.machinery.status import Obj

Place = tuple[str, str]
"""A path and where it comes from"""
_CERTIFICATE = (
    ("certificateChainPath", "PodCertificate chain"),
    ("keyPath", "PodCertificate key"),
    ("credentialBundlePath", "PodCertificate credential bundle"),
)


def overlapping_files(volumes: list[Obj]) -> Iterator[str]:
    for volume in volumes:
        name = volume.get("name") or ""
        for source, title, key in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
            if (body := volume.get(source)) is not None:
                yield from _told(name, f'{title} "{body.get(key) or ""}"', _items(body, ""))
        if (body := volume.get("downwardAPI")) is not None:
            yield from _told(name, "DownwardAPI", _items(body, ""))
        if (body := volume.get("projected")) is not None:
            places: list[Place] = []
            for source in body.get("sources") or ():
                if not any(v is not None for v in source.values()):
                    yield f'volume "{name}" (Projected) has no sources provided'
                places += _projected(source)
            yield from _told(name, "Projected", places)


def _items(body: Obj, source: str) -> list[Place]:
    return [(item.get("path") or "", source) for item in body.get("items") or ()]


def _projected(source: Obj) -> list[Place]:
    for kind, title in (("configMap", "ConfigMap"), ("secret", "Secret")):
        if (body := source.get(kind)) is not None and body.get("items") is not None:
            return _items(body, f'{title} "{body.get("name") or ""}"')
    if (body := source.get("downwardAPI")) is not None and body.get("items") is not None:
        return _items(body, "DownwardAPI")
    if (body := source.get("serviceAccountToken")) is not None:
        return [(body.get("path") or "", "ServiceAccountToken")]
    if (body := source.get("clusterTrustBundle")) is not None:
        named = body["name"] if body.get("name") is not None else body.get("signerName") or ""
        return [(body.get("path") or "", f'ClusterTrustBundle "{named}"')]
    if (body := source.get("podCertificate")) is not None:
        return [(body[key], title) for key, title in _CERTIFICATE if body.get(key)]
    return []


def _told(volume: str, source: str, places: list[Place]) -> Iterator[str]:
    seen: list[Place] = []
    for given, origin in places:
        path = given.rstrip("/")
        for other, other_origin in seen:
            if path and other and (f"{other}/".startswith(f"{path}/") or f"{path}/".startswith(f"{other}/")):
                both = f"{_shown(path, origin)} with {_shown(other, other_origin)}"
                yield f'volume "{volume}" ({source}): overlapping paths: {both}'
        seen.append((path, origin))


def _shown(path: str, source: str) -> str:
    return f'"{path}" ({source})' if source else f'"{path}"'
