"""Users and roles of the v2 API: who may do what with the v2 keys. They know nothing of the v3 API's.

The whole of it is one small value (`STATE`). A role names patterns of keys, each a key or a prefix with `*` behind
it. The role `root` may do everything and is never stored; `guest` is what somebody without a name may do.

Source: etcd etcdserver/api/v2auth/auth.go, v2http/client_auth.go (3.4, the last release that served it).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from berg.etcd.users import hash_password, password_matches
from berg.storage.embedded.engine import EmbeddedStore

STATE = "etcd/v2-auth"
ROOT, GUEST = "root", "guest"
NOT_ENOUGH = "Insufficient credentials"
_EVERYTHING = {"kv": {"read": ["/*"], "write": ["/*"]}}
_READING = ("GET", "HEAD")

Body = dict[str, Any]


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def _auth(status: int, text: str) -> Refused:
    return Refused(status, f"auth: {text}")


class V2Users:
    def __init__(self, store: EmbeddedStore, certificate_name: Callable[[web.BaseRequest], str]) -> None:
        """`certificate_name`: whom a request's client certificate names, where certificates are asked for."""
        self._store = store
        self._certificate_name = certificate_name
        self._writing = asyncio.Lock()
        kept = store.meta.get(STATE)
        state: Any = orjson.loads(kept) if kept else {"enabled": False, "users": {}, "roles": {}}
        self.enabled: bool = state["enabled"]
        self._users: dict[str, Body] = state["users"]
        self._roles: dict[str, Body] = state["roles"]

    async def _save(self) -> None:
        await self._store.set_meta(STATE, orjson.dumps(self.state()))

    def state(self) -> Body:
        return {"enabled": self.enabled, "users": self._users, "roles": self._roles}

    # -- who may what

    async def may(self, request: web.BaseRequest, key: str, *, recursive: bool) -> bool:
        """Whether the caller may do this to the key. A user with a password is checked at its hash's pace."""
        if not self.enabled:
            return True
        side = "read" if request.method in _READING else "write"
        user = await self._caller(request)
        if user is None:
            known = not request.headers.get("Authorization")
            return known and _permits(self._roles.get(GUEST), key, side, recursive=False)
        for name in user["roles"] or ():
            if name == ROOT or _permits(self._roles.get(name), key, side, recursive=recursive):
                return True
        return False

    async def is_root(self, request: web.BaseRequest) -> bool:
        if not self.enabled:
            return True
        user = await self._caller(request)
        return user is not None and ROOT in (user["roles"] or ())

    async def _caller(self, request: web.BaseRequest) -> Body | None:
        header = request.headers.get("Authorization", "")
        if not header:
            return self._find(self._certificate_name(request))
        name, password = _basic(header)
        user = self._find(name)
        if user is None or not await asyncio.to_thread(password_matches, password, user["password"]):
            return None
        return user

    def _find(self, name: str) -> Body | None:
        user = self._users.get(name)
        if user is not None and name == ROOT and ROOT not in (user["roles"] or ()):
            return {**user, "roles": [*(user["roles"] or ()), ROOT]}
        return user

    def _role(self, name: str) -> Body:
        if name == ROOT:
            return {"role": ROOT, "permissions": _EVERYTHING}
        if name not in self._roles:
            raise _auth(404, f"Role {name} does not exist.")
        return self._roles[name]

    # -- /v2/auth/…

    async def handle(self, request: web.BaseRequest, path: str) -> tuple[int, Body | None]:
        """(status, body). `path` is what comes behind `/auth`. Raises Refused."""
        kind, _, name = path.strip("/").partition("/")
        if kind not in ("users", "roles", "enable") or (kind == "enable" and name):
            raise Refused(404, "")
        if "/" in name:
            raise Refused(400, "Invalid path")
        allowed = ("GET", "PUT", "DELETE") if name or kind == "enable" else ("GET",)
        if request.method not in allowed:
            raise Refused(405, ",".join(allowed))
        if (kind != "enable" or request.method != "GET") and not await self.is_root(request):
            raise Refused(401, NOT_ENOUGH)
        async with self._writing:
            if kind == "enable":
                return await self._enable(request.method)
            if not name:
                return 200, self._all(kind)
            if kind == "users":
                return await self._user_request(request, name)
            return await self._role_request(request, name)

    async def _enable(self, method: str) -> tuple[int, Body | None]:
        if method == "GET":
            return 200, {"enabled": self.enabled}
        wanted = method == "PUT"
        if wanted == self.enabled:
            raise _auth(409, "already enabled" if wanted else "already disabled")
        if wanted:
            if ROOT not in self._users:
                raise _auth(409, "No root user available, please create one")
            self._roles.setdefault(GUEST, {"role": GUEST, "permissions": copy.deepcopy(_EVERYTHING)})
        self.enabled = wanted
        await self._save()
        return 200, None

    def _all(self, kind: str) -> Body:
        if kind == "roles":
            return {"roles": [self._role(name) for name in sorted({ROOT, *self._roles})]}
        return {"users": [self._shown(name, strict=False) for name in sorted(self._users)] or None}

    def _shown(self, name: str, *, strict: bool) -> Body:
        """A user with its roles written out; a role that is gone is an error or left out."""
        user = self._find(name)
        if user is None:
            raise _auth(404, f"User {name} does not exist.")
        names = user["roles"] or []
        roles = [self._role(role) for role in names if strict or role == ROOT or role in self._roles]
        return {"user": name, "roles": roles} if roles else {"user": name}

    # -- users

    async def _user_request(self, request: web.BaseRequest, name: str) -> tuple[int, Body | None]:
        if request.method == "GET":
            return 200, self._shown(name, strict=True)
        if request.method == "DELETE":
            if self.enabled and name == ROOT:
                raise _auth(403, "Cannot delete root user while auth is enabled.")
            if self._users.pop(name, None) is None:
                raise _auth(404, f"User {name} does not exist")
            await self._save()
            return 200, None
        wanted = _json(await request.read())
        if wanted.get("user", "") != name:
            raise Refused(400, "User JSON name does not match the name in the URL")
        changes = wanted.get("grant") or wanted.get("revoke")
        if changes and wanted.get("roles"):
            raise Refused(400, "User JSON contains both roles and grant/revoke")
        if changes or (not wanted.get("roles") and name in self._users):
            return 200, await self._update_user(wanted, name)
        return (200 if wanted.get("roles") else 201), await self._create_user(wanted, name)

    async def _create_user(self, wanted: Body, name: str) -> Body:
        roles = wanted.get("roles")
        if name == ROOT and ROOT not in (roles or ()):
            roles = [*(roles or ()), ROOT]
        if not wanted.get("password"):
            raise _auth(400, f"Cannot create user {name} with an empty password")
        if name in self._users:
            raise _auth(409, f"User {name} already exists.")
        self._users[name] = {"user": name, "password": await _hashed(wanted["password"]), "roles": roles}
        await self._save()
        return {"user": name, "roles": roles}

    async def _update_user(self, wanted: Body, name: str) -> Body:
        old = self._find(name)
        if old is None:
            raise _auth(404, f"User {name} does not exist.")
        password = await _hashed(wanted["password"]) if wanted.get("password") else old["password"]
        roles = set(old["roles"] or ())
        for role in wanted.get("grant") or ():
            if role in roles:
                raise _auth(409, f"Granting duplicate role {role} for user {name}")
            roles.add(role)
        for role in wanted.get("revoke") or ():
            if role not in roles:
                raise _auth(409, f"Revoking ungranted role {role} for user {name}")
            roles.remove(role)
        new = {"user": name, "password": password, "roles": sorted(roles)}
        if new == {**old, "roles": old["roles"] or []} and old["roles"] is not None:
            raise _auth(400, "User not updated. Use grant/revoke/password to update the user.")
        self._users[name] = new
        await self._save()
        return {"user": name, "roles": new["roles"]}

    # -- roles

    async def _role_request(self, request: web.BaseRequest, name: str) -> tuple[int, Body | None]:
        if request.method == "GET":
            return 200, self._role(name)
        wanted = _json(await request.read()) if request.method == "PUT" else {}
        if request.method == "PUT" and wanted.get("role", "") != name:
            raise Refused(400, "Role JSON name does not match the name in the URL")
        grant, revoke = _patterns(wanted.get("grant")), _patterns(wanted.get("revoke"))
        changes = any((*grant.values(), *revoke.values()))
        if changes and any(_patterns(wanted.get("permissions")).values()):
            raise Refused(400, "Role JSON contains both permissions and grant/revoke")
        if name == ROOT:
            raise _auth(403, f"Cannot modify role {name}: is root role.")
        if request.method == "DELETE":
            if self._roles.pop(name, None) is None:
                raise _auth(404, f"Role {name} doesn't exist.")
            await self._save()
            return 200, None
        if changes:
            return 200, await self._update_role(name, grant, revoke)
        if name in self._roles:
            raise _auth(409, f"Role {name} already exists.")
        kv = (wanted.get("permissions") or {}).get("kv") or {}
        permissions = {"kv": {"read": kv.get("read"), "write": kv.get("write")}}
        role = self._roles[name] = {"role": name, "permissions": permissions}
        await self._save()
        return 201, role

    async def _update_role(self, name: str, grant: Mapping[str, list[str]], revoke: Mapping[str, list[str]]) -> Body:
        old = self._role(name)
        kv: dict[str, list[str]] = {}
        for side in ("read", "write"):
            patterns = set(old["permissions"]["kv"][side] or ())
            for pattern in grant[side]:
                if pattern in patterns:
                    raise _auth(409, f"Granting duplicate {side} permission {pattern}")
                patterns.add(pattern)
            kv[side] = sorted(patterns.difference(revoke[side]))
        new = {"role": name, "permissions": {"kv": kv}}
        if new == old:
            raise _auth(400, "Role not updated. Use grant/revoke to update the role.")
        self._roles[name] = new
        await self._save()
        return new


def _permits(role: Body | None, key: str, side: str, *, recursive: bool) -> bool:
    patterns = (role["permissions"]["kv"][side] or ()) if role is not None else ()
    for pattern in patterns:
        if pattern.endswith("*"):
            if key.startswith(pattern[:-1]):
                return True
        elif pattern == key and not recursive:
            return True
    return False


def _patterns(permissions: Any) -> dict[str, list[str]]:
    kv = (permissions or {}).get("kv") or {}
    return {side: list(kv.get(side) or ()) for side in ("read", "write")}


def _json(body: bytes) -> Body:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict) or not all(_fits(name, part) for name, part in value.items()):
        raise Refused(400, "Invalid JSON in request body.")
    return value


def _fits(name: str, value: Any) -> bool:
    if value is None:
        return True
    if name in ("user", "role", "password"):
        return isinstance(value, str)
    if name == "roles" or (name in ("grant", "revoke") and isinstance(value, list)):
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    if name in ("permissions", "grant", "revoke"):
        kv = (value.get("kv") or {}) if isinstance(value, dict) else None
        return isinstance(kv, dict) and all(_fits("roles", kv.get(side)) for side in ("read", "write"))
    return True


def _basic(header: str) -> tuple[str, str]:
    """(name, password) of an Authorization header; both empty when it is none of that kind."""
    kind, _, encoded = header.partition(" ")
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    name, colon, password = text.partition(":")
    return (name, password) if kind.lower() == "basic" and colon else ("", "")


async def _hashed(password: str) -> str:
    try:
        return await asyncio.to_thread(hash_password, password)
    except ValueError as e:
        raise Refused(500, str(e)) from None
