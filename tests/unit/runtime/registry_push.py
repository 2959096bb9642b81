"""Pushes an OCI archive to a registry: what `docker push` does, for tests that pull it again."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import tarfile
from pathlib import Path


def push(archive: Path, host: str, port: int, repository: str, tag: str, auth: tuple[str, str] | None = None) -> str:
    """Returns the manifest's digest."""
    headers = {}
    if auth:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    descriptor = json.loads(files["index.json"])["manifests"][0]
    manifest_bytes = files[f"blobs/sha256/{descriptor['digest'][7:]}"]
    manifest = json.loads(manifest_bytes)
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        for blob in [manifest["config"], *manifest["layers"]]:
            _push_blob(connection, repository, blob["digest"], files[f"blobs/sha256/{blob['digest'][7:]}"], headers)
        content = {"Content-Type": descriptor["mediaType"], **headers}
        _request(connection, "PUT", f"/v2/{repository}/manifests/{tag}", manifest_bytes, content, 201)
    finally:
        connection.close()
    return str(descriptor["digest"])


def push_index(host: str, port: int, repository: str, tag: str, manifests: dict[str, tuple[str, int]]) -> str:
    """A manifest list: architecture to (digest, size) of manifests that are there already."""
    media_type = "application/vnd.oci.image.index.v1+json"
    entries = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture, (digest, size) in manifests.items()
    ]
    body = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        _request(connection, "PUT", f"/v2/{repository}/manifests/{tag}", body, {"Content-Type": media_type}, 201)
    finally:
        connection.close()
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _push_blob(
    connection: http.client.HTTPConnection, repository: str, digest: str, data: bytes, headers: dict[str, str]
) -> None:
    location = _request(connection, "POST", f"/v2/{repository}/blobs/uploads/", b"", headers, 202)["Location"]
    path = location.split("/", 3)[3] if "://" in location else location.lstrip("/")
    separator = "&" if "?" in path else "?"
    content = {"Content-Type": "application/octet-stream", **headers}
    _request(connection, "PUT", f"/{path}{separator}digest={digest}", data, content, 201)


def _request(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes, headers: dict[str, str], expected: int
) -> dict[str, str]:
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.read()
    assert response.status == expected, (method, path, response.status, answer[:300])
    return dict(response.getheaders())
