"""etcdserverpb.Auth: managing users and roles."""

from __future__ import annotations

import asyncio
from bisect import insort

from berg.etcd import users as u
from berg.etcd.member import Member
from berg.etcd.rpc import Call, Message, Method, RpcError
from berg.etcd.users import READ, READWRITE, ROOT, Permission, Role, User, Users
from berg.storage.etcd.api import rpc_pb2 as pb
from berg.storage.etcd.errors import UNKNOWN

_METHODS = (
    ("AuthEnable", "enable"),
    ("AuthDisable", "disable"),
    ("AuthStatus", "status"),
    ("Authenticate", "authenticate"),
    ("UserAdd", "user/add"),
    ("UserGet", "user/get"),
    ("UserList", "user/list"),
    ("UserDelete", "user/delete"),
    ("UserChangePassword", "user/changepw"),
    ("UserGrantRole", "user/grant"),
    ("UserRevokeRole", "user/revoke"),
    ("RoleAdd", "role/add"),
    ("RoleGet", "role/get"),
    ("RoleList", "role/list"),
    ("RoleDelete", "role/delete"),
    ("RoleGrantPermission", "role/grant"),
    ("RoleRevokePermission", "role/revoke"),
)


class AuthService:
    """One method per rpc, named as it is in snake case."""

    def __init__(self, member: Member, users: Users) -> None:
        self._member = member
        self._users = users

    def methods(self) -> list[Method]:
        out = []
        for name, path in _METHODS:
            message = name if name.startswith("Auth") else f"Auth{name}"
            unary = getattr(self, "".join(f"_{c.lower()}" if c.isupper() else c for c in name)[1:])
            request, answer = getattr(pb, f"{message}Request"), getattr(pb, f"{message}Response")
            out.append(Method(f"/etcdserverpb.Auth/{name}", request, answer, unary, http=(f"/auth/{path}",)))
        return out

    async def auth_enable(self, call: Call, m: Message) -> Message:
        users = self._users
        if not users.enabled:
            root = users.users.get(ROOT)
            if root is None:
                raise u.NO_ROOT_USER
            if ROOT not in root.roles:
                raise u.NO_ROOT_ROLE
            users.enabled = True
            await users.save(counted=False)
        else:
            users.must_be_admin(call)
        return pb.AuthEnableResponse(header=self._member.header())

    async def auth_disable(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        if self._users.enabled:
            self._users.enabled = False
            self._users.tokens.forget()
            await self._users.save()
        return pb.AuthDisableResponse(header=self._member.header())

    async def auth_status(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        users = self._users
        return pb.AuthStatusResponse(header=self._member.header(), enabled=users.enabled, authRevision=users.revision)

    async def authenticate(self, call: Call, m: Message) -> Message:
        try:
            token = await asyncio.to_thread(self._users.authenticate, m.name, m.password)
        except ValueError as e:
            raise RpcError(UNKNOWN, str(e)) from None
        return pb.AuthenticateResponse(header=self._member.header(), token=token)

    # -- users

    async def user_add(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        if not m.name:
            raise u.USER_EMPTY
        if m.name in self._users.users:
            raise u.USER_EXISTS
        no_password = m.options.no_password
        password = "" if no_password else await self._hashed(m.password)
        self._users.users[m.name] = User(m.name, password, no_password)
        await self._users.save()
        return pb.AuthUserAddResponse(header=self._member.header())

    async def user_get(self, call: Call, m: Message) -> Message:
        if self._users.enabled and self._users.caller(call) != m.name:
            self._users.must_be_admin(call)
        return pb.AuthUserGetResponse(header=self._member.header(), roles=self._user(m.name).roles)

    async def user_list(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        return pb.AuthUserListResponse(header=self._member.header(), users=sorted(self._users.users))

    async def user_delete(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        if self._users.enabled and m.name == ROOT:
            raise u.BAD_MANAGEMENT
        self._user(m.name)
        del self._users.users[m.name]
        self._users.tokens.forget(m.name)
        await self._users.save()
        return pb.AuthUserDeleteResponse(header=self._member.header())

    async def user_change_password(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        user = self._user(m.name)
        if not user.no_password:
            user.password = await self._hashed(m.password)
        self._users.tokens.forget(m.name)
        await self._users.save()
        return pb.AuthUserChangePasswordResponse(header=self._member.header())

    async def user_grant_role(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        user = self._user(m.user)
        if m.role != ROOT and m.role not in self._users.roles:
            raise u.ROLE_NOT_FOUND
        if m.role not in user.roles:
            insort(user.roles, m.role)
            await self._users.save()
        return pb.AuthUserGrantRoleResponse(header=self._member.header())

    async def user_revoke_role(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        if self._users.enabled and m.name == ROOT and m.role == ROOT:
            raise u.BAD_MANAGEMENT
        user = self._user(m.name)
        if m.role not in user.roles:
            raise u.ROLE_NOT_GRANTED
        user.roles.remove(m.role)
        await self._users.save()
        return pb.AuthUserRevokeRoleResponse(header=self._member.header())

    # -- roles

    async def role_add(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        if not m.name:
            raise u.ROLE_EMPTY
        if m.name in self._users.roles:
            raise u.ROLE_EXISTS
        self._users.roles[m.name] = Role(m.name)
        await self._users.save()
        return pb.AuthRoleAddResponse(header=self._member.header())

    async def role_get(self, call: Call, m: Message) -> Message:
        users = self._users
        if users.enabled:
            caller = users.users.get(users.caller(call))
            if caller is None or m.role not in caller.roles:
                users.must_be_admin(call)
        role = self._role(m.role)
        permissions = [Permission(READWRITE, b"", b"\0")] if role.name == ROOT else role.permissions
        return pb.AuthRoleGetResponse(
            header=self._member.header(),
            perm=[pb.Permission(permType=p.type, key=p.key, range_end=p.end or b"") for p in permissions],  # type: ignore[arg-type]
        )

    async def role_list(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        return pb.AuthRoleListResponse(header=self._member.header(), roles=sorted(self._users.roles))

    async def role_delete(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        if self._users.enabled and m.role == ROOT:
            raise u.BAD_MANAGEMENT
        self._role(m.role)
        del self._users.roles[m.role]
        for user in self._users.users.values():
            if m.role in user.roles:
                user.roles.remove(m.role)
        await self._users.save()
        return pb.AuthRoleDeleteResponse(header=self._member.header())

    async def role_grant_permission(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        if not m.HasField("perm"):
            raise u.PERMISSION_NOT_GIVEN
        key, end = m.perm.key, m.perm.range_end or None
        if not READ <= m.perm.permType <= READWRITE or (not key and end is None):
            raise u.BAD_MANAGEMENT
        if end is not None and end != b"\0" and end <= key:
            raise u.BAD_MANAGEMENT
        role = self._role(m.name)
        same = next((p for p in role.permissions if (p.key, p.end) == (key, end)), None)
        if same is not None:
            same.type = m.perm.permType
        else:
            role.permissions.append(Permission(m.perm.permType, key, end))
            role.permissions.sort(key=lambda p: p.key)
        await self._users.save()
        return pb.AuthRoleGrantPermissionResponse(header=self._member.header())

    async def role_revoke_permission(self, call: Call, m: Message) -> Message:
        self._users.must_be_admin(call)
        role = self._role(m.role)
        kept = [p for p in role.permissions if (p.key, p.end) != (m.key, m.range_end or None)]
        if len(kept) == len(role.permissions):
            raise u.PERMISSION_NOT_GRANTED
        role.permissions = kept
        await self._users.save()
        return pb.AuthRoleRevokePermissionResponse(header=self._member.header())

    async def _hashed(self, password: str) -> str:
        try:
            return await asyncio.to_thread(self._users.hash_password, password)
        except ValueError:
            raise RpcError(UNKNOWN, "bcrypt: password length exceeds 72 bytes") from None

    def _user(self, name: str) -> User:
        user = self._users.users.get(name)
        if user is None:
            raise u.USER_NOT_FOUND
        return user

    def _role(self, name: str) -> Role:
        role = self._users.roles.get(name)
        if role is None:
            raise u.ROLE_NOT_FOUND
        return role
