"""Envelope encryption with a KMS v2 plugin.

A seed is made here, encrypted by the plugin, and stored with every value; each value gets a key of its own derived
from it (HKDF, with 32 random bytes stored in front). The plugin is asked for its state every minute (every ten
seconds while it fails); a new key id means a new seed. Without a good answer for three minutes nothing is written
any more. Reading asks the plugin once per seed, and remembers.

`decrypt` cannot wait on the loop, so `prepare` fetches the seeds of values that are about to be read; a seed that
only turns up later is fetched in line, with the plugin's timeout as the bound.

Source: k8s.io/apiserver pkg/storage/value/encrypt/envelope/kmsv2, server/options/encryptionconfig; KEP-3299.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from berg.machinery.clock import Clock, RealClock
from berg.machinery.tasks import end
from berg.storage.encryption import kms_pb2 as pb
from berg.storage.encryption.figures import made_key
from berg.storage.encryption.providers import AesGcm
from berg.storage.transform import TransformError

PREFIX = b"k8s:enc:kms:v2:"
_SERVICE = "/v2.KeyManagementService/"
_SEED = pb.HKDF_SHA256_XNONCE_AES_GCM_SEED
SEED_BYTES = INFO_BYTES = 32
POLL_S, POLL_FAILING_S, WRITE_TTL_S = 60.0, 10.0, 180.0
MAX_KEY_ID_BYTES = 1024


class KmsError(Exception):
    """The plugin cannot be reached, or says that it is not well."""


class Plugin:
    """The plugin's socket."""

    def __init__(self, endpoint: str, timeout_s: float) -> None:
        self._target = "unix:" + endpoint.removeprefix("unix://")
        self._timeout_s = timeout_s
        self._channel: Any = None
        self._blocking: Any = None

    async def call(self, method: str, request: Any, answer: type[Any]) -> Any:
        import grpc
        import grpc.aio

        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._target)
        invoke = self._channel.unary_unary(_SERVICE + method, type(request).SerializeToString, answer.FromString)
        try:
            return await invoke(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as e:
            raise KmsError(f"{method}: {e.details()}") from None

    def call_now(self, method: str, request: Any, answer: type[Any]) -> Any:
        """The same without a loop: everything else stands still meanwhile."""
        import grpc

        if self._blocking is None:
            self._blocking = grpc.insecure_channel(self._target)
        invoke = self._blocking.unary_unary(_SERVICE + method, type(request).SerializeToString, answer.FromString)
        try:
            return invoke(request, timeout=self._timeout_s)
        except grpc.RpcError as e:
            raise KmsError(f"{method}: {e}") from None

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
        if self._blocking is not None:
            self._blocking.close()


class Kms:
    """The provider `kms` with `apiVersion: v2`."""

    def __init__(self, name: str, endpoint: str, timeout_s: float = 3.0, clock: Clock | None = None) -> None:
        self.name = name
        self.timeout_s = timeout_s
        self.rotated: Callable[[], None] = lambda: None
        self._plugin = Plugin(endpoint, timeout_s)
        self._clock: Clock = clock or RealClock()
        self._keys: dict[bytes, _DataKeys] = {}
        self._writing: Any = None
        """an EncryptedObject without data: what new values carry"""
        self._write_until = 0.0
        self._task: asyncio.Task[None] | None = None
        self.error = "not asked yet"

    # -- the plugin's state

    async def start(self) -> None:
        """Asks the plugin once; goes on asking in the background."""
        await self.poll()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        await end(self._task)
        await self._plugin.close()

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(POLL_FAILING_S if self.error else POLL_S)
            await self.poll()

    async def poll(self) -> None:
        try:
            try:
                status = await self._plugin.call("Status", pb.StatusRequest(), pb.StatusResponse)
            except KmsError as e:
                told = f"failed to perform status section of the healthz check for KMS Provider {self.name}"
                raise KmsError(f"{told}, error: {e}") from None
            if status.healthz != "ok":
                raise KmsError(f"got unexpected healthz status: {status.healthz}")
            if status.version not in ("v2", "v2beta1"):
                raise KmsError(f"expected KMSv2 API version v2, got {status.version}")
            if not 0 < len(status.key_id) <= MAX_KEY_ID_BYTES:
                raise KmsError("got invalid KMSv2 KeyID hash")
            if self._writing is None or self._writing.keyID != status.key_id:
                await self._new_seed()
            self._write_until = self._clock.monotonic() + WRITE_TTL_S
            self.error = ""
        except KmsError as e:
            self.error = str(e)

    async def _new_seed(self) -> None:
        started = perf_counter()
        seed = os.urandom(SEED_BYTES)
        made_key(started)
        request = pb.EncryptRequest(plaintext=seed, uid=str(uuid.uuid4()))
        answer = await self._plugin.call("Encrypt", request, pb.EncryptResponse)
        envelope = pb.EncryptedObject(
            keyID=answer.key_id,
            encryptedDEKSource=answer.ciphertext,
            annotations=dict(answer.annotations),
            encryptedDEKSourceType=_SEED,
        )
        self._keys[_source(envelope)] = _DataKeys(seed, derived=True)
        first, self._writing = self._writing is None, envelope
        if not first:
            self.rotated()

    # -- values

    def encrypt(self, key: bytes, value: bytes) -> bytes:
        if self._writing is None or self._clock.monotonic() > self._write_until:
            raise TransformError(f"KMS plugin {self.name} is not usable for writes: {self.error}")
        out = pb.EncryptedObject()
        out.CopyFrom(self._writing)
        out.encryptedData = self._keys[_source(out)].encrypt(key, value)
        return bytes(out.SerializeToString())

    def decrypt(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        envelope = _parse(data)
        keys = self._keys.get(_source(envelope))
        if keys is None:
            try:
                keys = self._learn(envelope, self._plugin.call_now("Decrypt", _request(envelope), pb.DecryptResponse))
            except KmsError as e:
                raise TransformError(f"failed to decrypt DEK, error: {e}") from None
        stale = self._writing is None or envelope.keyID != self._writing.keyID
        stale = stale or envelope.encryptedDEKSourceType != _SEED
        return keys.decrypt(key, envelope.encryptedData), stale

    async def prepare(self, values: Iterable[bytes]) -> None:
        """Fetches the seeds that are needed to read `values`. What cannot be fetched fails when it is read."""
        prefix = PREFIX + self.name.encode() + b":"
        for data in values:
            if not data.startswith(prefix):
                continue
            try:
                envelope = _parse(data[len(prefix) :])
                if _source(envelope) not in self._keys:
                    self._learn(envelope, await self._plugin.call("Decrypt", _request(envelope), pb.DecryptResponse))
            except (TransformError, KmsError):
                continue

    def _learn(self, envelope: Any, answer: Any) -> _DataKeys:
        keys = _DataKeys(answer.plaintext, derived=envelope.encryptedDEKSourceType == _SEED)
        self._keys[_source(envelope)] = keys
        return keys


class _DataKeys:
    """What one seed (or, as older servers stored it, one key) encrypts with."""

    def __init__(self, secret: bytes, *, derived: bool) -> None:
        self._secret = secret
        self._derived = derived

    def encrypt(self, key: bytes, value: bytes) -> bytes:
        info = os.urandom(INFO_BYTES)
        return info + self._cipher(info).encrypt(key, value)

    def decrypt(self, key: bytes, data: bytes) -> bytes:
        if not self._derived:
            return AesGcm(self._secret).decrypt(key, data)[0]
        if len(data) < INFO_BYTES:
            raise TransformError("the stored data was shorter than the required size")
        return self._cipher(data[:INFO_BYTES]).decrypt(key, data[INFO_BYTES:])[0]

    def _cipher(self, info: bytes) -> AesGcm:
        return AesGcm(HKDFExpand(SHA256(), 32, info).derive(self._secret))


def _parse(data: bytes) -> Any:
    try:
        envelope = pb.EncryptedObject.FromString(data)
    except Exception:
        raise TransformError("the stored data is no encrypted object") from None
    if not envelope.encryptedData or not envelope.keyID or not envelope.encryptedDEKSource:
        raise TransformError("the encrypted object lacks its data, key id or key")
    return envelope


def _source(envelope: Any) -> bytes:
    """What the seed depends on."""
    bare = pb.EncryptedObject()
    bare.CopyFrom(envelope)
    bare.ClearField("encryptedData")
    return bytes(bare.SerializeToString(deterministic=True))


def _request(envelope: Any) -> Any:
    return pb.DecryptRequest(
        ciphertext=envelope.encryptedDEKSource,
        uid=str(uuid.uuid4()),
        key_id=envelope.keyID,
        annotations=dict(envelope.annotations),
    )
