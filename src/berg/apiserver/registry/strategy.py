"""What differs between kinds. The generic registry asks a kind's `Strategy` at fixed moments:

    create:  default → prepare_for_create → (admission) → validate → canonicalize → store
    update:  default → prepare_for_update → (admission) → validate_update → canonicalize → store

Everything the schema bundle can say (types, required, pruning, list keys) is not said here again. A strategy
changes the object it is given in place and never the old one.

Kinds register themselves with `@strategy_for("apps", "deployments")`; `berg.apiserver.kinds` imports all of
them. A resource without one of its own gets `Strategy` as it stands (spec/status split where the schema has
both, generation bumped on spec changes).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from berg.machinery import names
from berg.machinery.clock import Clock, RealClock
from berg.machinery.features import FeatureGates
from berg.machinery.resources import Resource
from berg.machinery.status import FieldError, Obj

STATUS_METADATA = ("annotations", "labels", "finalizers", "ownerReferences")


@dataclass(slots=True)
class Context:
    """What a strategy may know of the request."""

    resource: Resource
    namespace: str = ""
    user: Any = None
    subresource: str = ""
    dry_run: bool = False
    clock: Clock = field(default_factory=RealClock)
    warnings: list[str] = field(default_factory=list)
    """sent as `Warning:` headers"""
    services: Any = None
    """`berg.apiserver.registry.services.Services`: allocators, other resources' registries"""
    verb: str = "update"
    """what was authorized: an update may have come as a patch"""

    def enabled(self, gate: str) -> bool:
        """Whether a feature is on."""
        features = FeatureGates() if self.services is None else self.services.features
        on: bool = features.enabled(gate)
        return on


@dataclass(slots=True, frozen=True)
class Column:
    """One column of a server-side table; `value(obj)` gives the cell (str, int, bool or None).

    `type`: string, integer, number, boolean, date. `priority` 0 is always shown, 1 with `-o wide`.
    """

    name: str
    value: Callable[[Obj], Any]
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


class Strategy:
    namespaced = True
    has_status = True
    """spec and status are written separately: a write to the main resource keeps the old status"""
    status_on_create = False
    """a creation may bring a status (nodes); else it is dropped before `prepare_for_create`"""
    generation = True
    """metadata.generation starts at 1 and rises when anything but metadata and status changes"""
    allow_create_on_update = False
    allow_unconditional_update = True
    unowned: tuple[tuple[str, ...], ...] = ()
    """what nobody comes to own by writing the main resource (besides status)"""
    orphans = False
    """a deletion that says nothing of its dependents leaves them (as upstream once began with)"""
    graceful = False
    """deletion may take a grace period (pods)"""
    generate_name_limit = 63
    columns: Sequence[Column] = ()
    """empty: Name and Age"""

    def default(self, obj: Obj) -> None:
        """Fills in defaults. Idempotent; also applied when an object is read from an old store or patched."""

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        """Drops what a client may not set. Status is already dropped when `has_status`; metadata.uid is set."""

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        """Also for the subresources that read as the kind itself and have a rule of their own (`ctx.subresource`:
        pods/ephemeralcontainers, pods/resize, namespaces/finalize, certificatesigningrequests/approval)."""

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        """Faults of a name (default: DNS-1123 subdomain); `prefix` when it is a generateName."""
        return names.dns1123_subdomain(name.rstrip("-") + "a" if prefix and name.endswith("-") else name)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        return []

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        """The generic part (immutable metadata) is already done. Default: same as `validate`."""
        return self.validate(ctx, obj)

    def canonicalize(self, obj: Obj) -> None: ...

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        return ()

    metadata_checks: tuple[int, int, int] = (1, 0, 1)
    """how often upstream's strategy validates metadata: on creation; on update as of a new object, as of a changed
    one. What is wrong is told as often."""
    status_metadata: Sequence[str] = STATUS_METADATA
    """of the metadata, what /status may write beside managedFields"""

    def prepare_status_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        """For /status: everything but status (and what the kind allows in metadata) is already the old one's."""

    authorize_status: Callable[[Context, Obj, Obj], Awaitable[list[FieldError]]] | None = None
    """faults of who writes what to /status, told before those of what is written"""

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return []

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        """Beyond metadata.name and metadata.namespace."""
        return {}

    def row_conditions(self, obj: Obj) -> list[Obj]:
        """TableRowConditions of its row in a table: Completed, for what has run to its end."""
        return []

    field_labels: Sequence[str] = ()
    """names that a field selector may use beyond metadata.name and metadata.namespace"""

    def labels_in(self, version: str) -> Sequence[str]:
        """`field_labels` of one version."""
        return self.field_labels

    def grace_period_s(self, ctx: Context, obj: Obj, requested_s: int | None) -> int:
        """How long a graceful deletion takes; 0: delete now. Only asked when `graceful`."""
        return 0

    async def begin_create(self, ctx: Context, obj: Obj) -> Callable[[bool], None] | None:
        """Reserves what the object needs (addresses, ports) before it is stored; the returned function is told
        whether that worked."""
        return None

    async def begin_update(self, ctx: Context, obj: Obj, old: Obj) -> Callable[[bool], None] | None:
        return None

    def begin_delete(self, obj: Obj) -> None:
        """What an object gets whose deletion has been asked for: finalizers of the kind's own, in place."""

    async def after_delete(self, ctx: Context, obj: Obj) -> None:
        """Gives back what `begin_create` reserved."""


_strategies: dict[tuple[str, str], Strategy] = {}


def strategy_for(group: str, *plurals: str) -> Callable[[type[Strategy]], type[Strategy]]:
    """Registers the class's one instance for these resources (in every version of the group)."""

    def register(cls: type[Strategy]) -> type[Strategy]:
        instance = cls()
        for plural in plurals:
            _strategies[group, plural] = instance
        return cls

    return register


def strategy_of(resource: Resource) -> Strategy:
    found = _strategies.get((resource.group, resource.plural))
    if found is None:
        found = _strategies[resource.group, resource.plural] = Strategy()
    return found
