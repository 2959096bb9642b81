"""Encryption at rest: what is in the store, what is read back, and what is refused."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from berg.machinery.clock import FakeClock
from berg.storage.cacher import open_cacher
from berg.storage.embedded import EmbeddedStore
from berg.storage.encryption import kms_pb2 as pb
from berg.storage.encryption.config import Encryption, InvalidConfiguration, load, validate
from berg.storage.encryption.kms import Kms
from berg.storage.encryption.secretbox import open_box, seal
from berg.storage.transform import Protobuf, TransformError

KEY = b"/registry/secrets/ns/a"
SECRET = base64.b64encode(bytes(range(32))).decode()
OTHER = base64.b64encode(bytes(range(32, 64))).decode()


def configuration(*providers: dict[str, Any], resources: tuple[str, ...] = ("secrets",)) -> dict[str, Any]:
    return {
        "kind": "EncryptionConfiguration",
        "apiVersion": "apiserver.config.k8s.io/v1",
        "resources": [{"resources": list(resources), "providers": list(providers)}],
    }


def keyed(kind: str, *keys: tuple[str, str]) -> dict[str, Any]:
    return {kind: {"keys": [{"name": name, "secret": secret} for name, secret in keys]}}


def transformer(*providers: dict[str, Any]) -> Any:
    found = Encryption(configuration(*providers)).transformer("", "secrets")
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["aesgcm", "aescbc", "secretbox"])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 3000])
def test_what_is_written_is_read_and_is_not_in_the_clear(kind: str, size: int) -> None:
    value = os.urandom(size)
    t = transformer(keyed(kind, ("key1", SECRET)))
    stored = t.to_storage(KEY, value)
    assert stored.startswith(b"k8s:enc:%b:v1:key1:" % kind.encode())
    assert size < 15 or value not in stored
    assert t.from_storage(KEY, stored) == (value, False)
    assert t.to_storage(KEY, value) != stored
    with pytest.raises(TransformError):
        t.from_storage(KEY, stored[:25])


@pytest.mark.parametrize("kind", ["aesgcm", "secretbox"])
def test_tampering_is_noticed(kind: str) -> None:
    t = transformer(keyed(kind, ("key1", SECRET)))
    stored = bytearray(t.to_storage(KEY, b"value"))
    stored[-1] ^= 1
    with pytest.raises(TransformError):
        t.from_storage(KEY, bytes(stored))


def test_a_value_moved_to_another_key_does_not_decrypt() -> None:
    t = transformer(keyed("aesgcm", ("key1", SECRET)))
    with pytest.raises(TransformError):
        t.from_storage(b"/registry/secrets/ns/b", t.to_storage(KEY, b"value"))


def test_secretbox_is_nacls() -> None:
    # the test vector that NaCl's own documentation of crypto_secretbox carries
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129"
        "6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
        "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
    )
    box = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
        "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
        "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74"
        "e355a5"
    )
    assert seal(key, nonce, message) == box
    assert open_box(key, nonce, box) == message


def test_rotation() -> None:
    old = transformer(keyed("aescbc", ("key1", SECRET)))
    stored = old.to_storage(KEY, b"value")
    both = transformer(keyed("aescbc", ("key2", OTHER), ("key1", SECRET)))
    assert both.from_storage(KEY, stored) == (b"value", True)
    assert both.to_storage(KEY, b"value").startswith(b"k8s:enc:aescbc:v1:key2:")
    with pytest.raises(TransformError, match="no matching key"):
        transformer(keyed("aescbc", ("key2", OTHER))).from_storage(KEY, stored)
    # the same provider twice, as a rotation leaves it
    twice = transformer(keyed("aescbc", ("key2", OTHER)), keyed("aescbc", ("key1", SECRET)))
    assert twice.from_storage(KEY, stored) == (b"value", True)


def test_to_encryption_and_back() -> None:
    on = transformer(keyed("aesgcm", ("key1", SECRET)), {"identity": {}})
    assert on.from_storage(KEY, b'{"in": "the clear"}') == (b'{"in": "the clear"}', True)
    stored = on.to_storage(KEY, b"value")
    off = transformer({"identity": {}}, keyed("aesgcm", ("key1", SECRET)))
    assert off.to_storage(KEY, b"value") == b"value"
    assert off.from_storage(KEY, stored) == (b"value", True)
    with pytest.raises(TransformError):
        transformer({"identity": {}}).from_storage(KEY, stored)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("secrets", [("", "secrets")], [("", "configmaps"), ("other", "secrets")]),
        ("deployments.apps", [("apps", "deployments")], [("", "deployments"), ("apps", "daemonsets")]),
        ("*.", [("", "secrets"), ("", "pods")], [("apps", "deployments")]),
        ("*.apps", [("apps", "deployments")], [("", "pods")]),
        ("*.*", [("", "pods"), ("apps", "deployments"), ("example.com", "foos")], []),
    ],
)
def test_which_resources(pattern: str, yes: list[tuple[str, str]], no: list[tuple[str, str]]) -> None:
    encryption = Encryption(configuration({"identity": {}}, resources=(pattern,)))
    assert all(encryption.transformer(*name) is not None for name in yes)
    assert all(encryption.transformer(*name) is None for name in no)


def test_faults_of_a_configuration_are_told_all_at_once() -> None:
    config = configuration(
        keyed("aescbc", ("", SECRET), ("short", base64.b64encode(b"x").decode()), ("bad", "!!!")),
        {"aesgcm": {"keys": []}},
        {"identity": {}, "secretbox": {}},
        {},
        {"kms": {"name": "a:b", "apiVersion": "v2", "endpoint": "http://x", "timeout": "0s"}},
        {"kms": {"name": "old", "endpoint": "unix:///x"}},
        resources=("Secrets", "*", "secrets.*", "pods", "*."),
    )
    text = "\n".join(map(str, validate(config)))
    for part in (
        "resources[0].providers[0].aescbc.keys[0].name: Required value: name is a mandatory field for a key",
        'keys[1].secret: Invalid value: "REDACTED": secret is not of the expected length, got 1, '
        "expected one of [16 24 32]",
        'keys[2].secret: Invalid value: "REDACTED": secrets must be base64 encoded',
        "resources[0].providers[1].aesgcm.keys: Required value: at least one keys is required",
        "more than one provider specified in a single element",
        "provider does not contain any of the expected providers",
        "must not contain ':'",
        "timeout should be a positive value",
        'unsupported scheme "http" for KMS provider, only unix is supported',
        "KMSv1 is deprecated",
        "resource name should not contain capital letters",
        "use '*.' to encrypt",
        "encrypting the same resource across groups is not supported",
        "will be masked",
    ):
        assert part in text, part
    assert SECRET not in text
    assert "at least one resources is required" in str(validate({**configuration(), "resources": []})[0])


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "encryption.yaml"
    for content in ("kind: Pod\n", ": broken: [", ""):
        path.write_text(content)
        with pytest.raises(InvalidConfiguration):
            load(path)


async def test_through_the_watch_cache(tmp_path: Path) -> None:
    store = EmbeddedStore(None)
    await store.start()
    encryption = Encryption(configuration(keyed("secretbox", ("key1", SECRET))))

    def opened(t: Any) -> Any:
        return open_cacher(store, "/registry/secrets/", namespaced=True, api_version="v1", kind="Secret", transformer=t)

    secrets = opened(encryption.transformer("", "secrets"))
    await secrets.start()
    secret = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"password": "aHVudGVyMg=="}}
    entry = await secrets.create("ns/a", secret)
    assert b"aHVudGVyMg" not in store.index.current[KEY].value
    assert entry.obj["data"] == secret["data"] and not entry.stale
    assert (await secrets.list()).entries[0].labels == {}
    gone = await secrets.delete("ns/a", expected=entry.revision)
    assert gone.obj["data"] == secret["data"]
    await secrets.create("ns/a", secret)
    await secrets.close()
    rotated = opened(
        Encryption(configuration(keyed("secretbox", ("key2", OTHER), ("key1", SECRET)))).transformer("", "secrets")
    )
    await rotated.start()
    entry = rotated.get("ns/a")
    assert entry.stale and entry.obj["data"] == secret["data"]
    assert not (await rotated.update("ns/a", secret, expected=entry.revision)).stale
    await rotated.close()
    await store.close()


def test_protobuf_in_the_store() -> None:
    inner = transformer(keyed("aesgcm", ("key1", SECRET)))
    value = b'{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"},"data":{"x":"eQ=="}}'
    plain = Protobuf().to_storage(KEY, value)
    assert plain.startswith(b"k8s\x00")
    both = Protobuf(inner)
    assert both.from_storage(KEY, both.to_storage(KEY, value)) == (plain, False)
    custom = b'{"kind":"Foo","apiVersion":"example.com/v1","metadata":{"name":"a"}}'
    assert Protobuf().to_storage(KEY, custom) == custom


# -- KMS


class FakePlugin:
    """A KMS v2 plugin that "encrypts" by XOR with its key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key_id = "k1"
        self.healthz = "ok"
        self.calls: list[str] = []
        self._server: Any = None

    async def start(self) -> None:
        plugin = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, details: Any) -> Any:
                name = details.method.rpartition("/")[2]
                request = getattr(pb, f"{name}Request")
                serve = getattr(plugin, name.lower())
                return grpc.unary_unary_rpc_method_handler(serve, request.FromString, lambda m: m.SerializeToString())

        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((Handler(),))
        self._server.add_insecure_port(f"unix:{self.path}")
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    async def status(self, request: Any, context: Any) -> Any:
        return pb.StatusResponse(version="v2", healthz=self.healthz, key_id=self.key_id)

    async def encrypt(self, request: Any, context: Any) -> Any:
        self.calls.append("encrypt")
        mixed = bytes(b ^ 0x55 for b in request.plaintext)
        return pb.EncryptResponse(ciphertext=mixed, key_id=self.key_id, annotations={"example.com/x": b"1"})

    async def decrypt(self, request: Any, context: Any) -> Any:
        self.calls.append("decrypt")
        return pb.DecryptResponse(plaintext=bytes(b ^ 0x55 for b in request.ciphertext))


@pytest.fixture
async def plugin(tmp_path: Path) -> AsyncIterator[FakePlugin]:
    plugin = FakePlugin(tmp_path / "kms.sock")
    await plugin.start()
    yield plugin
    await plugin.stop()


def with_kms(plugin: FakePlugin, clock: FakeClock) -> Encryption:
    kms = {"name": "vault", "apiVersion": "v2", "endpoint": f"unix://{plugin.path}"}
    return Encryption(configuration({"kms": kms}, {"identity": {}}), clock)


async def test_kms(plugin: FakePlugin) -> None:
    clock = FakeClock()
    encryption = with_kms(plugin, clock)
    await encryption.start()
    t = encryption.transformer("", "secrets")
    assert t is not None and encryption.problems() == []
    stored = [t.to_storage(KEY, b"value %d" % n) for n in range(3)]
    assert all(s.startswith(b"k8s:enc:kms:v2:vault:") for s in stored)
    assert [t.from_storage(KEY, s)[0] for s in stored] == [b"value 0", b"value 1", b"value 2"]
    assert plugin.calls == ["encrypt"]  # one seed serves them all
    with pytest.raises(TransformError):
        t.from_storage(b"/other", stored[0])
    await encryption.close()

    plugin.calls.clear()
    again = with_kms(plugin, clock)  # after a restart the seed has to be fetched
    await again.start()
    t = again.transformer("", "secrets")
    assert t is not None
    await t.prepare(stored)
    assert plugin.calls == ["encrypt", "decrypt"]
    assert t.from_storage(KEY, stored[0]) == (b"value 0", False)
    plugin.key_id = "k2"
    kms = again._kms["vault"]
    await kms.poll()
    assert t.from_storage(KEY, stored[0]) == (b"value 0", True)
    assert t.from_storage(KEY, t.to_storage(KEY, b"new")) == (b"new", False)
    await again.close()


async def test_a_plugin_that_fails_stops_writes_after_a_while(plugin: FakePlugin) -> None:
    clock = FakeClock()
    kms = Kms("vault", f"unix://{plugin.path}", clock=clock)
    await kms.poll()
    stored = kms.encrypt(KEY, b"value")
    plugin.healthz = "sick"
    await clock.advance(100)
    await kms.poll()
    assert "sick" in kms.error
    kms.encrypt(KEY, b"value")
    await clock.advance(100)
    with pytest.raises(TransformError, match="sick"):
        kms.encrypt(KEY, b"value")
    assert kms.decrypt(KEY, stored) == (b"value", False)
    await kms.close()


async def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    kms = Kms("vault", f"unix://{tmp_path}/none.sock", timeout_s=0.2, clock=FakeClock())
    await kms.start()
    assert kms.error.startswith("failed to perform status section of the healthz check for KMS Provider vault, error: ")
    with pytest.raises(TransformError):
        kms.encrypt(KEY, b"value")
    await kms.close()
