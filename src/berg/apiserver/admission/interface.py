"""Admission: plugins that may change (`admit`) or refuse (`validate`) a write, in upstream's fixed order.

A plugin is one small module with one class; `admission/chain.py` lists them. Refusal is an ApiError
(usually `status.forbidden`). All mutating plugins run before all validating ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from berg.apiserver.auth.authorization import AuthzAttributes, Verdict
from berg.apiserver.http.message import User
from berg.machinery import names
from berg.machinery.clock import Clock
from berg.machinery.metrics import Registry
from berg.machinery.resources import Resource, builtin
from berg.machinery.status import Obj

CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"


@dataclass(slots=True)
class Rounds:
    """Mutating plugins run once, and once more when a webhook or a policy has changed something after others ran.

    A hook is called by (plugin, whatever the plugin calls it by). In the second round only those run that may be
    reinvoked and that ran before the change.
    """

    second: bool = False
    wanted: bool = False
    ran: set[Hashable] = field(default_factory=set)
    due: set[Hashable] = field(default_factory=set)
    left: dict[str, Obj] = field(default_factory=dict)
    """plugin → the object as it left it"""

    dirty: bool = False
    """a mutating policy has had its say about the object"""
    settled: bool = False
    """times that this request has set are as long as they will be stored"""

    def settles_times(self, a: Attributes) -> bool:
        """A patch cuts times that the request itself has set down to seconds: the first counts as a change."""
        meta, old = (a.obj or {}).get("metadata") or {}, (a.old or {}).get("metadata") or {}
        unsettled = a.operation == CREATE or meta.get("managedFields") != old.get("managedFields")
        if self.settled or not unsettled or a.is_custom:
            return False
        self.settled = True
        return True

    def changed(self, plugin: str) -> None:
        """`plugin` changed the object: whoever ran before and may run again shall."""
        self.wanted = True
        again = {k for k in self.ran if isinstance(k, tuple) and k[0] == plugin}
        self.due |= again
        self.ran -= again


@dataclass(slots=True)
class Attributes:
    operation: str
    resource: Resource
    subresource: str
    namespace: str
    name: str
    obj: Obj | None
    """the new object; None on DELETE. Mutating plugins change it in place."""
    old: Obj | None
    user: User
    options: Obj = field(default_factory=dict)
    """CreateOptions, UpdateOptions, PatchOptions, DeleteOptions, or the Exec/Attach/PortForward options"""
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)
    audit_annotations: dict[str, str] = field(default_factory=dict)
    subresource_kind: tuple[str, str, str] | None = None
    """(group, version, kind) of `obj` where a subresource is read as another kind (Scale, Eviction, Binding)"""
    requested: Resource | None = None
    """the resource in the version the client asked for, where that is not `resource`'s"""
    decisions: dict[object, Verdict] | None = None
    """what a webhook has said to expressions that asked the authorizer"""
    attributes: dict[str, Any] = field(default_factory=dict)
    """the request's"""
    rounds: Rounds | None = None
    """made by the first plugin that may want the mutating plugins run once more"""

    @property
    def is_custom(self) -> bool:
        """Its type is known from a definition alone."""
        r = self.resource
        return builtin().get(r.group, r.version, r.plural) is None

    def annotate(self, key: str, value: str) -> None:
        """For the audit log, if `key` is one that may stand there. What was said once stays."""
        prefix, _, name = key.partition("/")
        if not names.dns1123_subdomain(prefix) and "/" not in name and not names.qualified_name(name):
            self.audit_annotations.setdefault(key, value)


class StillAsked(BaseException):
    """An expression asks the authorizer something that a webhook has to be asked for: expressions cannot wait, so the
    plugin is run again when the answer is there. No Exception: nothing on the way may take it for a fault."""

    def __init__(self, key: object, answer: Awaitable[Verdict]) -> None:
        self.key = key
        self.answer = answer


class Api(Protocol):
    """What plugins see of the server they run in: reads from the watch cache, privileged writes."""

    clock: Clock

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        """Shared; must not be changed."""
        ...

    def list(self, resource: Resource, namespace: str | None = None) -> list[Obj]: ...

    def counter(self, resource: Resource) -> Callable[[], int]:
        """Tells how many there are, at no cost: for what is asked at every write."""
        ...

    async def create(self, resource: Resource, namespace: str, obj: Obj) -> Obj: ...

    async def update(self, resource: Resource, namespace: str, obj: Obj, subresource: str = "") -> Obj:
        """Optimistic: raises a Conflict when metadata.resourceVersion is not the current one."""
        ...

    async def delete(self, resource: Resource, namespace: str, name: str, options: Obj | None = None) -> None: ...

    async def authorize(
        self,
        user: User,
        verb: str,
        resource: Resource,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
    ) -> bool: ...

    def decide(self, asked: AuthzAttributes) -> Verdict | Awaitable[Verdict]: ...

    def strategy(self, resource: Resource) -> Any: ...


class Plugin:
    """Base of all; override one of the two methods."""

    name = ""
    mutating = False
    validating = False
    operations: frozenset[str] = frozenset({CREATE, UPDATE, DELETE, CONNECT})
    resources: frozenset[str] | None = None
    """`pods`, `leases.coordination.k8s.io`: what it looks at; None: everything. The chain calls it for nothing else."""
    subresources: frozenset[str] | None = frozenset({""})
    """which of them; None: every subresource and the resource itself"""

    def __init__(self, api: Api, config: Obj | None = None) -> None:
        self.api = api
        self.config = config or {}
        self.metrics: Registry = getattr(api, "metrics", None) or Registry()

    def handles(self, a: Attributes) -> bool:
        return True

    async def admit(self, a: Attributes) -> None: ...

    async def validate(self, a: Attributes) -> None: ...

    async def close(self) -> None:
        """Lets go what it holds open."""
