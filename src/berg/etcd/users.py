"""Users, roles and what they may do: etcd's authentication, kept beside the keys.

The whole of it is one small value (`STATE`), so each change is one durable write. A role permits ranges; what a
user may do is the union of its roles' ranges; the role `root` permits everything. Tokens are of the "simple" kind:
known to this process only, and gone some minutes after their last use.

Passwords are kept as scrypt hashes. Those that came with a snapshot of a real etcd are bcrypt, and are checked by
the system's crypt library where it can.

Source: etcd server/auth/store.go, range_perm_cache.go, simple_token.go.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from berg.etcd.rpc import Call, RpcError
from berg.storage.embedded.engine import EmbeddedStore
from berg.storage.etcd.errors import FAILED_PRECONDITION, INVALID_ARGUMENT, PERMISSION_DENIED, UNAUTHENTICATED
from berg.storage.interface import DeleteRequest, PutRequest, RangeRequest, TxnRequest

STATE = "etcd/auth"
ROOT = "root"
TOKEN_TTL_S = 300.0
READ, WRITE, READWRITE = 0, 1, 2

_INFINITE = b""
"""as the end of a range: there is none"""


def _refuse(code: int, text: str) -> RpcError:
    return RpcError(code, f"etcdserver: {text}")


USER_EMPTY = _refuse(INVALID_ARGUMENT, "user name is empty")
USER_NOT_FOUND = _refuse(FAILED_PRECONDITION, "user name not found")
USER_EXISTS = _refuse(FAILED_PRECONDITION, "user name already exists")
ROLE_EMPTY = _refuse(INVALID_ARGUMENT, "role name is empty")
ROLE_NOT_FOUND = _refuse(FAILED_PRECONDITION, "role name not found")
ROLE_EXISTS = _refuse(FAILED_PRECONDITION, "role name already exists")
ROLE_NOT_GRANTED = _refuse(FAILED_PRECONDITION, "role is not granted to the user")
PERMISSION_NOT_GRANTED = _refuse(FAILED_PRECONDITION, "permission is not granted to the role")
PERMISSION_NOT_GIVEN = _refuse(INVALID_ARGUMENT, "permission not given")
DENIED = _refuse(PERMISSION_DENIED, "permission denied")
BAD_TOKEN = _refuse(UNAUTHENTICATED, "invalid auth token")
BAD_MANAGEMENT = _refuse(INVALID_ARGUMENT, "invalid auth management")
AUTH_FAILED = _refuse(INVALID_ARGUMENT, "authentication failed, invalid user ID or password")
NOT_ENABLED = _refuse(FAILED_PRECONDITION, "authentication is not enabled")
NO_ROOT_USER = _refuse(FAILED_PRECONDITION, "root user does not exist")
NO_ROOT_ROLE = _refuse(FAILED_PRECONDITION, "root user does not have root role")


@dataclass(slots=True)
class User:
    name: str
    password: str = ""
    """a hash; empty: none will do (`no_password`)"""
    no_password: bool = False
    roles: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Permission:
    type: int
    key: bytes
    end: bytes | None
    """None: one key; b"\\0": no end"""


@dataclass(slots=True)
class Role:
    name: str
    permissions: list[Permission] = field(default_factory=list)


class Users:
    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self.enabled = False
        self.revision = 1
        self.users: dict[str, User] = {}
        self.roles: dict[str, Role] = {}
        self._tokens: dict[str, tuple[str, float]] = {}
        self._permitted: dict[tuple[str, int], list[tuple[bytes, bytes]]] = {}

    def load(self) -> None:
        kept = self._store.meta.get(STATE)
        if kept:
            state = orjson.loads(kept)
            self.enabled, self.revision = state["enabled"], state["revision"]
            self.users = {u["name"]: User(**u) for u in state["users"]}
            self.roles = {
                r["name"]: Role(r["name"], [_permission(p) for p in r["permissions"]]) for r in state["roles"]
            }

    async def save(self) -> None:
        """Every change ends here: it is durable, and counted, before it is answered."""
        self.revision += 1
        self._permitted.clear()
        await self._store.set_meta(STATE, dump_state(self.enabled, self.revision, self.users, self.roles))

    # -- who calls

    def caller(self, call: Call) -> str:
        """The user's name; empty when the caller did not say. Only asked while authentication is on."""
        token = call.token.removeprefix("Bearer ")
        if not token:
            return call.common_name
        known = self._tokens.get(token)
        now = self._store.clock.monotonic()
        if known is None or known[1] < now:
            self._tokens.pop(token, None)
            raise BAD_TOKEN
        self._tokens[token] = (known[0], now + TOKEN_TTL_S)
        return known[0]

    def authenticate(self, name: str, password: str) -> str:
        """A token. Slow on purpose, as password hashes are."""
        if not self.enabled:
            raise NOT_ENABLED
        user = self.users.get(name)
        if user is None or user.no_password or not password_matches(password, user.password):
            raise AUTH_FAILED
        token = f"{secrets.token_urlsafe(16)}.{self._store.revision}"
        self._tokens[token] = (name, self._store.clock.monotonic() + TOKEN_TTL_S)
        return token

    def forget_tokens(self, name: str | None = None) -> None:
        self._tokens = {t: known for t, known in self._tokens.items() if name is not None and known[0] != name}

    # -- what they may do

    def must_be_known(self, call: Call) -> None:
        if self.enabled and not self.caller(call):
            raise USER_EMPTY

    def must_be_admin(self, call: Call) -> None:
        if not self.enabled:
            return
        name = self.caller(call)
        if not name:
            raise USER_EMPTY
        user = self.users.get(name)
        if user is None:
            raise USER_NOT_FOUND
        if ROOT not in user.roles:
            raise DENIED

    def may_read(self, call: Call, key: bytes, end: bytes | None) -> None:
        self._must(call, READ, key, end)

    def may_write(self, call: Call, key: bytes, end: bytes | None) -> None:
        self._must(call, WRITE, key, end)

    def can_read(self, call: Call, key: bytes, end: bytes | None) -> bool:
        try:
            self.may_read(call, key, end)
        except RpcError:
            return False
        return True

    def may_put(self, call: Call, put: PutRequest) -> None:
        if not self.enabled:
            return
        self.may_write(call, put.key, None)
        if put.prev_kv:
            self.may_read(call, put.key, None)
        held = self._store.held.find(put.lease) if put.lease else None
        if held is not None:  # who revokes the lease deletes its keys: only who may write them joins it
            for key in held.keys:
                self.may_write(call, key, None)

    def may_txn(self, call: Call, txn: TxnRequest) -> None:
        if not self.enabled:
            return
        for compare in txn.compare:
            self.may_read(call, compare.key, compare.range_end)
        for op in (*txn.success, *txn.failure):
            if isinstance(op, RangeRequest):
                self.may_read(call, op.key, op.range_end)
            elif isinstance(op, PutRequest):
                self.may_put(call, op)
            elif isinstance(op, DeleteRequest):
                self.may_write(call, op.key, op.range_end)
                if op.prev_kv:
                    self.may_read(call, op.key, op.range_end)
            else:
                self.may_txn(call, op)

    def _must(self, call: Call, type: int, key: bytes, end: bytes | None) -> None:
        if not self.enabled:
            return
        name = self.caller(call)
        if not name:
            raise USER_EMPTY
        user = self.users.get(name)
        if user is None:
            raise DENIED
        if ROOT in user.roles:
            return
        first, last = _interval(key, end)
        for start, stop in self._ranges(user, type):
            if start <= first and (stop == _INFINITE or (last != _INFINITE and last <= stop)):
                return
        raise DENIED

    def _ranges(self, user: User, type: int) -> list[tuple[bytes, bytes]]:
        """The user's ranges, joined where they touch."""
        known = self._permitted.get((user.name, type))
        if known is not None:
            return known
        permissions = [p for role in user.roles if role in self.roles for p in self.roles[role].permissions]
        spans = sorted(_interval(p.key, p.end) for p in permissions if p.type in (type, READWRITE))
        joined: list[tuple[bytes, bytes]] = []
        for start, stop in spans:
            if joined and (joined[-1][1] == _INFINITE or start <= joined[-1][1]):
                before = joined[-1]
                longest = _INFINITE if _INFINITE in (before[1], stop) else max(before[1], stop)
                joined[-1] = (before[0], longest)
            else:
                joined.append((start, stop))
        self._permitted[user.name, type] = joined
        return joined


def dump_state(enabled: bool, revision: int, users: dict[str, User], roles: dict[str, Role]) -> bytes:
    state: dict[str, Any] = {
        "enabled": enabled,
        "revision": revision,
        "users": list(users.values()),
        "roles": [
            {
                "name": role.name,
                "permissions": [
                    [p.type, p.key.hex(), None if p.end is None else p.end.hex()] for p in role.permissions
                ],
            }
            for role in roles.values()
        ],
    }
    return orjson.dumps(state)


def _permission(kept: Sequence[Any]) -> Permission:
    return Permission(kept[0], bytes.fromhex(kept[1]), None if kept[2] is None else bytes.fromhex(kept[2]))


def _interval(key: bytes, end: bytes | None) -> tuple[bytes, bytes]:
    if end is None:
        return key, key + b"\0"
    return key, _INFINITE if end == b"\0" else end


# -- passwords

_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1}


def hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=_SCRYPT["n"], r=_SCRYPT["r"], p=_SCRYPT["p"])
    return f"scrypt${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def password_matches(password: str, kept: str) -> bool:
    if kept.startswith("scrypt$"):
        _, salt, digest = kept.split("$")
        again = hashlib.scrypt(
            password.encode(), salt=base64.b64decode(salt), n=_SCRYPT["n"], r=_SCRYPT["r"], p=_SCRYPT["p"]
        )
        return hmac.compare_digest(again, base64.b64decode(digest))
    crypt = _system_crypt()
    again_text = crypt(password.encode(), kept.encode()) if crypt is not None else None
    return again_text is not None and hmac.compare_digest(again_text, kept.encode())


def _system_crypt() -> Callable[[bytes, bytes], bytes | None] | None:
    import ctypes
    import ctypes.util

    name = ctypes.util.find_library("crypt")
    if name is None:
        return None
    crypt = ctypes.CDLL(name).crypt
    crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    crypt.restype = ctypes.c_char_p
    return lambda password, kept: crypt(password, kept)
