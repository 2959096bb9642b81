"""Users, roles and what they may do: etcd's authentication, kept beside the keys.

The whole of it is one small value (`STATE`), so each change is one durable write. A role permits ranges; what a
user may do is the union of its roles' ranges; the role `root` permits everything. Who has shown a password gets a
token (see `tokens`).

Passwords are kept as bcrypt hashes, as etcd has them: a snapshot takes them along, either way.

Source: etcd server/auth/store.go, range_perm_cache.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from berg.etcd.rpc import Call, RpcError
from berg.etcd.tokens import SimpleTokens, Tokens
from berg.storage.embedded.engine import EmbeddedStore
from berg.storage.etcd.errors import FAILED_PRECONDITION, INVALID_ARGUMENT, PERMISSION_DENIED, UNAUTHENTICATED, UNKNOWN
from berg.storage.interface import DeleteRequest, PutRequest, RangeRequest, TxnRequest

STATE = "etcd/auth"
ROOT = "root"
BCRYPT_COST = 10
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
OLD_REVISION = _refuse(INVALID_ARGUMENT, "revision of auth store is old")
BAD_MANAGEMENT = _refuse(INVALID_ARGUMENT, "invalid auth management")
AUTH_FAILED = _refuse(INVALID_ARGUMENT, "authentication failed, invalid user ID or password")
NO_PASSWORD = RpcError(UNKNOWN, "auth: authentication failed, password was given for no password user")
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
    def __init__(
        self,
        store: EmbeddedStore,
        tokens: Tokens | None = None,
        *,
        by_certificate: bool = True,
        bcrypt_cost: int = BCRYPT_COST,
    ) -> None:
        """`by_certificate`: who shows no token is who the client certificate names."""
        self._store = store
        self._by_certificate = by_certificate
        self._bcrypt_cost = bcrypt_cost
        self.enabled = False
        self.revision = 1
        self.users: dict[str, User] = {}
        self.roles: dict[str, Role] = {}
        self.tokens: Tokens = tokens or SimpleTokens(store.clock)
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

    async def save(self, *, counted: bool = True) -> None:
        """Every change ends here: it is durable, and counted, before it is answered."""
        self.revision += counted
        self._permitted.clear()
        await self._store.set_meta(STATE, dump_state(self.enabled, self.revision, self.users, self.roles))

    # -- who calls

    def caller(self, call: Call) -> str:
        """The user's name; empty when the caller did not say. Only asked while authentication is on."""
        return self._shown(call)[0]

    def _shown(self, call: Call) -> tuple[str, int | None]:
        """With the revision of users and roles the caller knows, where a token tells."""
        if not call.token:
            return (call.common_name if self._by_certificate else ""), None
        known = self.tokens.who(call.token.removeprefix("Bearer "))
        if known is None:
            raise BAD_TOKEN
        return known

    def authenticate(self, name: str, password: str) -> str:
        """A token. Slow on purpose, as password hashes are."""
        if not self.enabled:
            raise NOT_ENABLED
        user = self.users.get(name)
        if user is None:
            raise AUTH_FAILED
        if user.no_password:
            raise NO_PASSWORD
        revision = self.revision  # before the hash, which takes long enough for users to change
        if not password_matches(password, user.password):
            raise AUTH_FAILED
        return self.tokens.assign(name, revision, self._store.revision)

    def hash_password(self, password: str) -> str:
        """Raises ValueError when it is too long to be hashed whole."""
        return hash_password(password, self._bcrypt_cost)

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

    def may_put(self, call: Call, put: PutRequest) -> None:
        if not self.enabled:
            return
        self.may_write(call, put.key, None)
        if put.prev_kv:
            self.may_read(call, put.key, None)
        if put.lease:  # who revokes the lease deletes its keys: only who may write them joins it
            self.may_write_leased(call, put.lease)

    def may_write_leased(self, call: Call, lease: int) -> None:
        """Whether all keys of the lease may be written."""
        held = self._store.held.find(lease) if self.enabled else None
        for key in held.keys if held is not None else ():
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
        name, revision = self._shown(call)
        if not name:
            raise USER_EMPTY
        if revision is not None and revision < self.revision:
            raise OLD_REVISION  # for keys only, as in etcd: who manages users goes on with the same token
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


def hash_password(password: str, cost: int = BCRYPT_COST) -> str:
    import bcrypt

    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost, b"2a")).decode()


def password_matches(password: str, kept: str) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password.encode(), kept.encode())
    except ValueError:  # longer than any that was ever hashed, or no hash at all
        return False
