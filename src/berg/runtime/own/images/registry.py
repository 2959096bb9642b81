"""Pulling from a registry by the OCI distribution protocol.

Manifest lists lead to this machine's manifest; every blob is checked against its digest; a download that broke off is
resumed where it stopped (also by a later pull). Credentials are used only with the registry they are for, and with the
token service that this registry names.

Source: OCI distribution specification 1.1; the distribution project's token authentication.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import orjson

from berg.runtime.cri import Code
from berg.runtime.own.images import names
from berg.runtime.own.images.store import (
    ARCHITECTURE,
    Image,
    ImageError,
    ImageStore,
    LayerSource,
    Progress,
    ProgressCallback,
)

if TYPE_CHECKING:
    import aiohttp

    from berg.runtime.api import cri_pb2 as pb

_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MANIFEST_LIMIT = 8 << 20
_ATTEMPTS = 4
_PARALLEL = 3


class PullError(ImageError):
    def __init__(self, message: str, code: Code = Code.UNKNOWN) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str = ""
    password: str = ""
    identity_token: str = ""
    """Exchanged for an access token at the registry's token service."""
    registry_token: str = ""
    """An access token, sent as it is."""

    @classmethod
    def of(cls, auth: pb.AuthConfig) -> Credentials:
        """CRI's AuthConfig; raises PullError when its `auth` is not what `docker login` writes."""
        username, password = auth.username, auth.password
        if auth.auth and not username:
            try:
                username, _, password = base64.b64decode(auth.auth, validate=True).decode().rstrip("\0").partition(":")
            except ValueError:
                raise PullError("the credentials are not base64 of user:password", Code.INVALID_ARGUMENT) from None
        return cls(username, password, auth.identity_token, auth.registry_token)

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Registries:
    """How registries are reached."""

    insecure: frozenset[str] = frozenset()
    """Spoken to in plain HTTP (loopback always may be)."""
    mirrors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Registry to base URLs that are tried first, as `https://mirror.example`; `*` stands for every registry."""
    ca_file: str = ""
    user_agent: str = "berg"

    def endpoints(self, domain: str) -> list[str]:
        host = "registry-1.docker.io" if domain == names.DOCKER_HUB else domain
        plain = domain in self.insecure or _is_loopback(domain)
        own = [f"http://{host}"] if plain else [f"https://{host}"]
        if _is_loopback(domain) and domain not in self.insecure:
            own.insert(0, f"https://{host}")
        mirrors = self.mirrors.get(domain, self.mirrors.get("*", ()))
        return [*(mirror.rstrip("/") for mirror in mirrors), *own]


def _is_loopback(domain: str) -> bool:
    host = domain.rsplit(":", 1)[0].strip("[]")
    return host in ("localhost", "::1") or re.fullmatch(r"127\.\d+\.\d+\.\d+", host) is not None


async def pull(
    store: ImageStore,
    registries: Registries,
    text: str,
    credentials: Credentials | None = None,
    progress: ProgressCallback | None = None,
) -> Image:
    """Raises PullError or ImageError, or InvalidName."""
    import ssl

    import aiohttp

    name = names.parse(text)
    if progress:
        progress(Progress("resolve", str(name)))
    context = ssl.create_default_context(cafile=registries.ca_file or None)
    timeout = aiohttp.ClientTimeout(total=None, connect=30, sock_read=60)
    headers = {"User-Agent": registries.user_agent}
    connector = aiohttp.TCPConnector(ssl=context)
    # Layers are verified as they are sent: nothing may be unpacked on the way.
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=headers, auto_decompress=False, trust_env=True
    ) as session:
        failure: PullError | None = None
        for endpoint in registries.endpoints(name.domain):
            repository = _Repository(session, endpoint, name, credentials or Credentials())
            try:
                return await _Pull(store, repository, name, progress).run()
            except PullError as error:
                # The registry itself comes last: what it says is what counts, unless it cannot be reached.
                if failure is None or error.code != Code.UNAVAILABLE:
                    failure = error
        assert failure is not None
        raise failure


class _Repository:
    """One repository at one endpoint, with its authentication."""

    def __init__(
        self, session: aiohttp.ClientSession, endpoint: str, name: names.Name, credentials: Credentials
    ) -> None:
        self._session = session
        self._base = f"{endpoint}/v2/{name.path}"
        self._endpoint = endpoint
        self._name = name
        self._credentials = credentials
        self._authorization = f"Bearer {credentials.registry_token}" if credentials.registry_token else ""

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> aiohttp.ClientResponse:
        """A response with status 200 or 206; the caller releases it. Raises PullError."""
        import aiohttp

        for attempt in range(_ATTEMPTS):
            sent = dict(headers or {})
            if self._authorization:
                sent["Authorization"] = self._authorization
            try:
                response = await self._session.get(f"{self._base}/{path}", headers=sent)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if attempt == _ATTEMPTS - 1 or isinstance(error, aiohttp.ClientConnectorError):
                    raise PullError(self._failed(path, _reason(error)), Code.UNAVAILABLE) from error
                await asyncio.sleep(0.2 * 2**attempt)
                continue
            if response.status in (200, 206):
                return response
            body = (await response.read())[:1000]
            if response.status == 401 and attempt == 0:
                await self._authenticate(response.headers.getall("WWW-Authenticate", []))
                continue
            if response.status in (429, 502, 503, 504) and attempt < _ATTEMPTS - 1:
                await asyncio.sleep(0.5 * 2**attempt)
                continue
            raise self._refused(response.status, path, body)
        raise PullError(self._failed(path, "authentication failed"), Code.UNAUTHENTICATED)

    async def _authenticate(self, challenges: Sequence[str]) -> None:
        for challenge in challenges:
            scheme, _, rest = challenge.partition(" ")
            parameters = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            if scheme.lower() == "bearer" and "realm" in parameters:
                self._authorization = f"Bearer {await self._token(parameters)}"
                return
            if scheme.lower() == "basic" and self._credentials.username:
                self._authorization = self._credentials.basic()
                return
        raise PullError(self._failed("", "authorization failed: no basic auth credentials"), Code.UNAUTHENTICATED)

    async def _token(self, parameters: Mapping[str, str]) -> str:
        import aiohttp

        scope = parameters.get("scope") or f"repository:{self._name.path}:pull"
        query = {"service": parameters.get("service", ""), "scope": scope}
        realm = parameters["realm"]
        try:
            if self._credentials.identity_token:
                form = {**query, "grant_type": "refresh_token", "client_id": "berg"}
                form["refresh_token"] = self._credentials.identity_token
                response = await self._session.post(realm, data=form)
            else:
                headers = {"Authorization": self._credentials.basic()} if self._credentials.username else {}
                response = await self._session.get(realm, params=query, headers=headers)
            body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise PullError(f"failed to fetch a token from {realm}: {_reason(error)}", Code.UNAVAILABLE) from error
        if response.status != 200:
            text = f"failed to authorize: failed to fetch a token from {realm}: status {response.status}"
            raise PullError(text, Code.UNAUTHENTICATED)
        try:
            answer = orjson.loads(body)
            return str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise PullError(f"{realm} gave no token", Code.UNAUTHENTICATED) from None

    def _refused(self, status: int, path: str, body: bytes) -> PullError:
        if status == 404:
            return PullError(f'failed to resolve reference "{self._name}": {self._name}: not found', Code.NOT_FOUND)
        if status in (401, 403):
            text = "pull access denied, repository does not exist or may require authorization"
            return PullError(self._failed(path, f"{text} (status {status})"), Code.UNAUTHENTICATED)
        return PullError(self._failed(path, f"unexpected status {status}: {body.decode(errors='replace')}"))

    def _failed(self, path: str, why: str) -> str:
        where = f' Get "{self._base}/{path}":' if path else ""
        return f'failed to resolve reference "{self._name}":{where} {why}'


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


class _Pull:
    def __init__(
        self, store: ImageStore, repository: _Repository, name: names.Name, progress: ProgressCallback | None
    ) -> None:
        self._store = store
        self._repository = repository
        self._name = name
        self._progress = progress or (lambda _: None)

    async def run(self) -> Image:
        manifest, digest = await self._manifest(self._name.digest or self._name.tag, self._name.digest, 0)
        tags = [self._name.tagged] if self._name.tagged and not self._name.digest else []
        digests = [f"{self._name.repository}@{digest}"]
        image = self._store.get(manifest["config"]["digest"])
        if image is None:
            config = await self._small(manifest["config"])
            image = await self._fetch(config, manifest["layers"], tags, digests)
        else:
            self._store.name(image, tags=tags, digests=digests)
        self._progress(Progress("done", str(self._name)))
        return image

    async def _manifest(self, reference: str, expected: str, depth: int) -> tuple[Any, str]:
        """This machine's manifest, with the digest of what the reference itself names."""
        accept = ", ".join((*_MANIFEST_TYPES, *_INDEX_TYPES))
        response = await self._repository.get(f"manifests/{reference}", {"Accept": accept})
        async with response:
            data = await response.content.read(_MANIFEST_LIMIT + 1)
            while len(data) <= _MANIFEST_LIMIT and (more := await response.content.read(_MANIFEST_LIMIT)):
                data += more
        if len(data) > _MANIFEST_LIMIT:
            raise PullError(f"the manifest of {self._name} is larger than {_MANIFEST_LIMIT} bytes")
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if expected and digest != expected:
            raise PullError(f"{self._name}: the registry sent {digest} for {expected}", Code.DATA_LOSS)
        try:
            parsed = orjson.loads(data)
            if "manifests" in parsed and depth < 3:
                chosen = _choose(parsed["manifests"])
                if chosen is None:
                    text = f"no match for platform linux/{ARCHITECTURE} in the manifest of {self._name}: not found"
                    raise PullError(text, Code.NOT_FOUND)
                manifest, _ = await self._manifest(chosen, chosen, depth + 1)
                return manifest, digest
            if parsed.get("schemaVersion") == 2 and "config" in parsed:
                _check_descriptors([parsed["config"], *parsed["layers"]])
                return parsed, digest
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PullError(f"the manifest of {self._name} cannot be read: {error}") from error
        raise PullError(f"the manifest of {self._name} is of a kind that is no longer used (schema 1?)")

    async def _small(self, descriptor: Any) -> bytes:
        if descriptor["size"] > _MANIFEST_LIMIT:
            raise PullError(f"the configuration of {self._name} is larger than {_MANIFEST_LIMIT} bytes")
        response = await self._repository.get(f"blobs/{descriptor['digest']}")
        async with response:
            data = await response.read()
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != descriptor["digest"]:
            raise PullError(f"{descriptor['digest']} came damaged", Code.DATA_LOSS)
        return data

    async def _fetch(self, config: bytes, layers: Sequence[Any], tags: list[str], digests: list[str]) -> Image:
        """Downloads run ahead of the unpacking, a few at a time."""
        from berg.runtime.own.images.store import chain_ids

        diff_ids = (orjson.loads(config).get("rootfs") or {}).get("diff_ids") or []
        chains = chain_ids(diff_ids)
        gate = asyncio.Semaphore(_PARALLEL)
        paths: list[str] = []
        needed = [
            len(chains) != len(layers) or not self._store.has_chain(chain)
            for chain in (chains if len(chains) == len(layers) else [""] * len(layers))
        ]
        try:
            async with asyncio.TaskGroup() as group:
                for layer, missing in zip(layers, needed, strict=True):
                    path = self._store.ingest_path(f"blob-{layer['digest'].removeprefix('sha256:')}")
                    paths.append(path)
                    if missing:
                        group.create_task(self._download(layer, path, gate))
        except BaseExceptionGroup as group:
            failures, others = group.split(PullError)
            if failures is None or others is not None:
                raise
            raise failures.exceptions[0] from None
        sources = [
            LayerSource(layer["digest"], layer["size"], partial(_open, path))
            for layer, path in zip(layers, paths, strict=True)
        ]
        image = await asyncio.to_thread(
            self._store.store, config, sources, tags=tags, digests=digests, progress=self._progress
        )
        for path in paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
        return image

    async def _download(self, layer: Any, path: str, gate: asyncio.Semaphore) -> None:
        import aiohttp

        digest, size = layer["digest"], layer["size"]
        async with gate:
            for attempt in range(_ATTEMPTS):
                try:
                    await self._download_once(digest, size, path)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    if attempt == _ATTEMPTS - 1:
                        raise PullError(f"layer {digest}: {_reason(error)}", Code.UNAVAILABLE) from error
                    await asyncio.sleep(0.2 * 2**attempt)
                    continue
                if await asyncio.to_thread(_digest_of, path) == digest:
                    return
                os.unlink(path)  # damaged from an earlier run, or on the way: once more from the start
            raise PullError(f"layer {digest} came damaged", Code.DATA_LOSS)

    async def _download_once(self, digest: str, size: int, path: str) -> None:
        have = _size(path, size)
        if have == size:
            return
        response = await self._repository.get(f"blobs/{digest}", {"Range": f"bytes={have}-"} if have else None)
        async with response:
            resumed = response.status == 206
            have = have if resumed else 0
            file = await asyncio.to_thread(open, path, "ab" if resumed else "wb")
            with file:
                async for chunk in response.content.iter_chunked(1 << 18):
                    have += len(chunk)
                    if have > size:
                        raise PullError(f"layer {digest} is longer than its manifest says", Code.DATA_LOSS)
                    await asyncio.to_thread(file.write, chunk)
                    self._progress(Progress("download", digest, have, size))
        if have < size:
            raise ConnectionResetError(f"the connection ended after {have} of {size} bytes")


def _open(path: str) -> IO[bytes]:
    return open(path, "rb")


def _size(path: str, most: int) -> int:
    """The bytes that an earlier attempt left; too many are worth nothing."""
    have = os.path.getsize(path) if os.path.exists(path) else 0
    if have > most:
        os.unlink(path)
        return 0
    return have


def _choose(manifests: Sequence[Any]) -> str | None:
    for entry in manifests:
        platform = entry.get("platform") or {}
        if platform.get("os") == "linux" and platform.get("architecture") == ARCHITECTURE:
            return str(entry["digest"])
    return None


def _check_descriptors(descriptors: Sequence[Any]) -> None:
    for descriptor in descriptors:
        if not names.image_id(descriptor["digest"]) or not isinstance(descriptor["size"], int):
            raise ValueError(f'unusable descriptor "{descriptor}"')


def _digest_of(path: str) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
