"""Tokens of users: simple ones age, signed ones hold for one revision of users and roles."""

from __future__ import annotations

from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from berg.etcd.rpc import Call, RpcError
from berg.etcd.tokens import open_tokens
from berg.etcd.users import READ, Permission, Role, User, Users, hash_password
from berg.machinery.clock import FakeClock
from berg.storage.embedded import EmbeddedStore


def keys(folder: Path, method: str) -> tuple[Path, Path]:
    key = {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "PS384": lambda: rsa.generate_private_key(65537, 2048),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[method]()
    private, public = folder / "key", folder / "key.pub"
    kind = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


async def test_a_simple_token_lives_as_long_as_it_is_used() -> None:
    clock = FakeClock()
    tokens = open_tokens("simple", clock, 300)
    token = tokens.assign("alice", 1, 7)
    assert token.endswith(".7")
    for _ in range(3):
        await clock.advance(299)
        assert tokens.who(token) == ("alice", None)
    await clock.advance(301)
    assert tokens.who(token) is None
    token = tokens.assign("alice", 1, 7)
    tokens.forget("bob")
    assert tokens.who(token) is not None
    tokens.forget("alice")
    assert tokens.who(token) is None


@pytest.mark.parametrize("method", ["RS256", "PS384", "ES256", "EdDSA"])
async def test_a_signed_token_is_good_until_it_expires(method: str, tmp_path: Path) -> None:
    clock = FakeClock()
    private, public = keys(tmp_path, method)
    tokens = open_tokens(f"jwt,pub-key={public},priv-key={private},sign-method={method},ttl=10m", clock)
    token = tokens.assign("alice", 5, 0)
    claims = jwt.decode(token, public.read_bytes(), algorithms=[method], options={"verify_exp": False})
    assert claims == {"username": "alice", "revision": 5, "exp": int(clock.now().timestamp()) + 600}
    checking = open_tokens(f"jwt,pub-key={public},sign-method={method}", clock)
    assert tokens.who(token) == checking.who(token) == ("alice", 5)
    with pytest.raises(ValueError, match="verify-only"):
        checking.assign("alice", 5, 0)
    assert tokens.who(token[:-4] + "AAAA") is None and tokens.who("") is None
    unsigned = jwt.encode({"username": "root", "revision": 99, "exp": 2**33}, "", algorithm="none")
    assert tokens.who(unsigned) is None
    forged = jwt.encode({"username": "root", "revision": 99}, public.read_bytes().hex(), algorithm="HS256")
    assert tokens.who(forged) is None
    await clock.advance(601)
    assert tokens.who(token) is None


def test_bad_flags_are_refused(tmp_path: Path) -> None:
    private, _ = keys(tmp_path, "ES256")
    (tmp_path / "other").mkdir()
    _, other = keys(tmp_path / "other", "ES256")
    for flag, text in (
        ("jwt", "signing method"),
        ("jwt,sign-method=none", "signing method"),
        ("jwt,sign-method=ES256", "missing key"),
        ("jwt,sign-method=HS256", "missing key"),
        ("jwt,sign-method", "auth options"),
        ("jwt,ttl=1m,ttl=2m", "auth options"),
        ("jwt,sign-method=HS256,ttl=x", "invalid duration"),
        (f"jwt,sign-method=ES256,priv-key={private},pub-key={other}", "don't match"),
        ("paper", "auth options"),
    ):
        with pytest.raises(ValueError, match=text):
            open_tokens(flag, FakeClock())


async def test_a_signed_token_ends_with_the_revision_it_names(tmp_path: Path) -> None:
    key = tmp_path / "secret"
    key.write_bytes(b"a secret of enough bytes for SHA-256")
    store = EmbeddedStore(None)
    await store.start()
    users = Users(store, open_tokens(f"jwt,sign-method=HS256,priv-key={key}", FakeClock()))
    users.roles["reader"] = Role("reader", [Permission(READ, b"k", None)])
    users.users["root"] = User("root", hash_password("r", 4), roles=["root"])
    users.users["alice"] = User("alice", hash_password("pw", 4), roles=["reader"])
    users.enabled = True
    alice = Call({"authorization": "Bearer " + users.authenticate("alice", "pw")})
    root = Call({"token": users.authenticate("root", "r")})
    users.may_read(alice, b"k", None)
    with pytest.raises(RpcError, match="permission denied"):
        users.may_write(alice, b"k", None)
    await users.save()
    with pytest.raises(RpcError, match="etcdserver: revision of auth store is old"):
        users.may_read(alice, b"k", None)
    users.must_be_admin(root)  # who changes users goes on
    with pytest.raises(RpcError, match="authentication failed"):
        users.authenticate("alice", "wrong")
    await store.close()


async def test_a_certificate_is_who_calls_only_where_certificates_are_asked_for() -> None:
    store = EmbeddedStore(None)
    await store.start()
    for asked, name in ((True, "bob"), (False, "")):
        assert Users(store, by_certificate=asked).caller(Call(common_name="bob")) == name
    await store.close()
