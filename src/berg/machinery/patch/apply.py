"""Server-side apply, and the ownership of fields that every write keeps up.

`update` runs on each create, update and patch: fields that changed become the writer's and leave everyone else.
`apply` merges what a manager wants into the live object: what it wanted before and no longer names is removed,
unless someone else owns it; what others own and it would change is a conflict, unless forced.

Both take objects in the request's version and the type of that version. Entries of other versions are looked at
as if they were of this one, unless `convert` brings objects into theirs.

Source: KEP-555; k8s.io/apimachinery pkg/util/managedfields, sigs.k8s.io/structured-merge-diff merge.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

from berg.machinery.clock import rfc3339
from berg.machinery.codec import json
from berg.machinery.decode import zero
from berg.machinery.patch import checking, comparing, created, fieldset, managed, membership, merging
from berg.machinery.patch.fieldset import FieldSet
from berg.machinery.patch.managed import Entry, Managed, Manager
from berg.machinery.patch.shapes import BadList
from berg.machinery.status import ApiError, Obj, bad_request
from berg.machinery.typedef import Field, TypeDef

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_ANNOTATIONS_LIMIT = 256 * 1024

Convert = Callable[[Obj, str], "tuple[Obj, TypeDef] | None"]
"""(object, api version) -> the object in that version and its type; None when the version is not served"""

_NEVER_OWNED = fieldset.of_paths(
    *map(fieldset.fields, ("apiVersion", "kind", "metadata")),
    *(
        fieldset.fields("metadata", name)
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ),
)


def update(
    live: Obj | None,
    new: Obj,
    manager: str,
    *,
    api_version: str,
    operation: str = "Update",
    subresource: str = "",
    now: datetime,
    type: TypeDef,
    reset: Iterable[tuple[str, ...]] = (),
    convert: Convert | None = None,
) -> Obj:
    """`new` with the managedFields that it has after this write (a shallow copy; arguments are not changed).
    `reset` names fields that this endpoint does not write, e.g. `("status",)`."""
    metadata = new.get("metadata") or {}
    asked = metadata.get("managedFields")
    before = ((live or {}).get("metadata") or {}).get("managedFields")
    owners, given = _owners(before, asked, trusted=not subresource)
    if not owners and live is not None and (live.get("metadata") or {}).get("uid"):
        return _with_managed(new, None)  # upstream does not begin to track an object that was untracked
    old = _bare(live) if live is not None else _blank(type, api_version)
    after = _bare(new)
    if live is None and not owners:
        with contextlib.suppress(created.NotPlain):
            return _created(old, after, managed.manager_of(manager, operation, api_version, subresource), api_version,
                            now, type, frozenset(path[0] for path in reset if len(path) == 1))  # fmt: skip
    if old == after and not given:
        return _with_managed(new, before)
    try:
        _update(owners, old, after, managed.manager_of(manager, operation, api_version, subresource), api_version,
                now=now, type_=type, reset=_reset_set(reset), convert=convert)  # fmt: skip
    except BadList:  # ownership is lost rather than the write: the object itself is valid without it
        return _with_managed(new, None)
    return _with_managed(new, managed.write(owners))


def _created(
    blank: Obj, new: Obj, who: Manager, api_version: str, now: datetime, type_: TypeDef, reset: frozenset[str]
) -> Obj:
    """`update` of nothing by one writer: he owns what is there. Raises NotPlain."""
    try:
        mine = created.fields_of(type_, blank, new, _NEVER_OWNED, reset)
    except BadList:
        return _with_managed(new, None)
    if not mine:
        return _with_managed(new, None)
    return _with_managed(new, [managed.written(who, Entry(mine, api_version, rfc3339(now)))])


def apply(
    live: Obj | None,
    applied: Obj,
    manager: str,
    *,
    force: bool = False,
    subresource: str = "",
    now: datetime,
    type: TypeDef,
    reset: Iterable[tuple[str, ...]] = (),
    convert: Convert | None = None,
) -> Obj:
    """The object to store: not yet defaulted or decoded (nulls that were applied are still there). Raises
    ApiError: 409 with a FieldManagerConflict for each field that others own, 400, or 500 for what does not fit
    the type. Neither argument is changed."""
    api_version = applied.get("apiVersion", "")
    metadata = applied.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise bad_request("metadata must be an object")
    if metadata.get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    if faults := checking.faults(type, applied):
        raise ApiError(500, "", f"failed to create typed patch object ({shown_name(applied)}): {_together(faults)}")
    base = live if live is not None else empty(type, applied)
    try:
        owners = managed.read((base.get("metadata") or {}).get("managedFields"))
    except managed.BadManagedFields as e:
        raise ApiError(500, "", f"failed to decode managed fields: {e}") from None
    old = _bare(base)
    who = managed.manager_of(manager, "Apply", api_version, subresource)
    exclude = _reset_set(reset)
    if not owners and live is not None:
        before = Manager(managed.BEFORE_FIRST_APPLY, "Update", api_version, subresource)
        try:
            _update(owners, empty(type, applied), old, before, api_version,
                    now=now, type_=type, reset=exclude, convert=convert)  # fmt: skip
        except BadList:
            why = f"failed to convert new object ({shown_name(old)}) to smd typed: {_unfit(type, old)}"
            raise ApiError(500, "", f"failed to create manager for existing fields: {why}") from None
    try:
        merged = _apply(owners, old, applied, who, api_version, force, type, exclude, convert)
    except BadList:
        raise ApiError(
            500, "", f"failed to create typed live object ({shown_name(old)}): {_unfit(type, old)}"
        ) from None
    except _Conflicts as e:
        conflicts = e.conflicts
        if manager == "kubectl":
            allowed = _owned_by_client_side_apply(old, api_version, type)
            conflicts = [c for c in conflicts if not fieldset.has(allowed, c[1])]
        if conflicts:
            raise conflict_error(conflicts) from None
        merged = _apply(owners, old, applied, who, api_version, True, type, exclude, convert)
    if manager == "kubectl":
        merged = _refresh_last_applied(merged, applied)
    if merged != old and who in owners:
        owners[who].time = rfc3339(now)
    return _with_managed(merged, managed.write(owners))


def keep_timestamps(live: Obj, new: Obj) -> Obj:
    """`new`, or with the managedFields of `live` when nothing but the times of its managers has changed: such a
    write is none."""
    a, b = ((o.get("metadata") or {}).get("managedFields") or [] for o in (live, new))
    if len(a) != len(b) or a == b or [_timeless(e) for e in a] != [_timeless(e) for e in b]:
        return new
    return _with_managed(new, a) if _bare(live) == _bare(new) else new


def _timeless(entry: Obj) -> Obj:
    return {k: v for k, v in entry.items() if k != "time"}


def empty(type_: TypeDef, like: Obj) -> Obj:
    """An object of this type that nobody has set a field of."""
    blank = zero(Field("", "object", struct=type_)) if type_.builtin else {}
    return {**blank, **{k: like[k] for k in ("apiVersion", "kind") if k in like}}


@lru_cache(maxsize=512)
def _blank(type_: TypeDef, api_version: str) -> Obj:
    """An `empty` object to compare with; shared, never handed out."""
    kind = type_.gvk[2] if type_.gvk else ""
    return empty(type_, {"apiVersion": api_version, "kind": kind})


def _bare(obj: Obj) -> Obj:
    metadata = obj.get("metadata")
    if not metadata or "managedFields" not in metadata:
        return obj
    return {**obj, "metadata": {k: v for k, v in metadata.items() if k != "managedFields"}}


def _with_managed(obj: Obj, entries: list[Obj] | None) -> Obj:
    metadata = {k: v for k, v in (obj.get("metadata") or {}).items() if k != "managedFields"}
    if entries:
        metadata["managedFields"] = entries
    return {**obj, "metadata": metadata}


def _owners(before: Any, asked: Any, *, trusted: bool) -> tuple[Managed, bool]:
    """(who owns what before this write, whether the writer has said so itself)."""
    if trusted and asked is not None and asked is not before:
        if managed.is_reset(asked):
            return {}, True
        try:
            if (given := managed.read(asked)) and asked != before and _are_sets(given):
                return {who: e for who, e in given.items() if e.fields}, True
        except managed.BadManagedFields:
            pass
    try:
        return managed.read(before), False
    except managed.BadManagedFields:
        return {}, False


def _are_sets(given: Managed) -> bool:
    return all(fieldset.is_set(entry.fields) for entry in given.values())


def _reset_set(reset: Iterable[tuple[str, ...]]) -> FieldSet:
    return fieldset.of_paths(*(fieldset.fields(*path) for path in reset)) if reset else fieldset.EMPTY


# ---- one write's effect on the owners -------------------------------------------------------------------


def _update(
    owners: Managed,
    old: Obj,
    new: Obj,
    who: Manager,
    api_version: str,
    *,
    now: datetime,
    type_: TypeDef,
    reset: FieldSet,
    convert: Convert | None,
) -> None:
    comparison = _take_from_others(owners, None, old, new, api_version, True, type_, reset, convert)
    mine = fieldset.recursive_difference(comparison.changed, reset)
    managed.take_fields(owners, who, fieldset.difference(mine, _NEVER_OWNED), api_version, now)
    managed.cap_updaters(owners)


class _Conflicts(Exception):
    def __init__(self, conflicts: list[tuple[Manager, fieldset.Path]]) -> None:
        self.conflicts = conflicts


def _take_from_others(
    owners: Managed,
    who: Manager | None,
    old: Obj,
    new: Obj,
    api_version: str,
    force: bool,
    type_: TypeDef,
    reset: FieldSet,
    convert: Convert | None,
) -> comparing.Comparison:
    """Everyone but `who` loses what changed or went. Raises _Conflicts, unless `force`, before anything is lost."""
    comparison = _compare(type_, old, new, reset)
    versions = {api_version: comparison}
    conflicts: list[tuple[Manager, fieldset.Path]] = []
    for other, entry in list(owners.items()):
        if other == who:
            continue
        if entry.api_version not in versions:
            versions[entry.api_version] = comparison
            if convert is not None:
                pair = convert(old, entry.api_version), convert(new, entry.api_version)
                if pair[0] is None or pair[1] is None:
                    del owners[other]  # a version that is gone: so is what was owned in it
                    del versions[entry.api_version]
                    continue
                versions[entry.api_version] = _compare(pair[0][1], pair[0][0], pair[1][0], reset)
        if not force:
            touched = fieldset.intersection(entry.fields, versions[entry.api_version].changed)
            conflicts += [(other, path) for path in fieldset.paths(touched)]
    if conflicts:
        raise _Conflicts(conflicts)
    for other, entry in list(owners.items()):
        if other == who:
            continue
        seen = versions[entry.api_version]
        left = fieldset.difference(fieldset.difference(entry.fields, seen.changed), seen.removed)
        if left is not entry.fields:
            if left:
                owners[other] = Entry(left, entry.api_version, entry.time)
            else:
                del owners[other]
    return comparison


def _compare(type_: TypeDef, old: Obj, new: Obj, reset: FieldSet) -> comparing.Comparison:
    comparison = comparing.compare(type_, old, new)
    if reset:
        for part in ("removed", "modified", "added"):
            setattr(comparison, part, fieldset.recursive_difference(getattr(comparison, part), reset))
    return comparison


# ---- applying -------------------------------------------------------------------------------------------


def _apply(
    owners: Managed,
    old: Obj,
    applied: Obj,
    who: Manager,
    api_version: str,
    force: bool,
    type_: TypeDef,
    reset: FieldSet,
    convert: Convert | None,
) -> Obj:
    merged = merging.merge(type_, old, applied)
    last = owners.get(who)
    wanted = fieldset.recursive_difference(membership.to_field_set(type_, applied), reset)
    trial = {**owners, who: Entry(wanted, api_version, last.time if last else "")}
    if last is not None:
        merged = _prune(type_, merged, last, trial.values(), api_version, convert)
    _take_from_others(trial, who, old, merged, api_version, force, type_, reset, convert)
    wanted = fieldset.difference(wanted, _NEVER_OWNED)
    owners.clear()
    owners.update(trial)
    if wanted:
        owners[who] = Entry(wanted, api_version, last.time if last else "")
    else:
        del owners[who]
    return merged


def _prune(
    type_: TypeDef, merged: Obj, last: Entry, owners: Iterable[Entry], api_version: str, convert: Convert | None
) -> Obj:
    """Removes what was applied last time and is owned by nobody now. Three steps, as upstream: take away all that
    was applied; put back what is owned (with its parents), version by version; put back what was not applied but
    hung below."""
    kept: dict[str, FieldSet] = {last.api_version: {}}
    for entry in owners:
        kept[entry.api_version] = fieldset.union(kept.get(entry.api_version, {}), entry.fields)
    if len(kept) == 1 and not fieldset.difference(last.fields, kept[last.api_version]):
        return merged

    def seen(obj: Obj, version: str) -> tuple[Obj, TypeDef] | None:
        same = convert is None or obj.get("apiVersion") == version == api_version
        return (obj, type_) if same or convert is None else convert(obj, version)

    before = seen(merged, last.api_version)
    if before is None:
        return merged  # what was applied then cannot be understood any more
    whole, of = before
    applied = membership.with_named_fields(of, last.fields)
    pruned = merging.remove(of, whole, applied)
    for version, owned in kept.items():
        left, right = seen(whole, version), seen(pruned, version)
        if left is None or right is None:
            continue
        stays = fieldset.union(_members(*right), membership.with_named_fields(left[1], owned))
        pruned = merging.remove(left[1], left[0], fieldset.difference(_members(*left), stays))
    after = seen(pruned, last.api_version)
    if after is None:
        return merged
    gone = fieldset.difference(_members(whole, of), _members(*after))
    back = seen(merging.remove(of, whole, fieldset.intersection(gone, applied)), api_version)
    return merged if back is None else back[0]


def _members(obj: Obj, type_: TypeDef) -> FieldSet:
    return membership.with_named_fields(type_, membership.to_field_set(type_, obj))


def conflict_error(conflicts: list[tuple[Manager, fieldset.Path]]) -> ApiError:
    conflicts = sorted(conflicts, key=lambda c: str(c[0]))
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": fieldset.show(path)}
        for who, path in conflicts
    ]
    if len(conflicts) == 1:
        who, path = conflicts[0]
        text = f"Apply failed with 1 conflict: conflict with {who}: {fieldset.show(path)}"
    else:
        lines, last = [], None
        for who, path in conflicts:
            if who != last:
                lines.append(f"conflicts with {who}:")
                last = who
            lines.append(f"- {fieldset.show(path)}")
        text = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    return ApiError(409, "Conflict", text, {"causes": causes})


def _together(faults: list[str]) -> str:
    return faults[0] if len(faults) == 1 else "errors:\n" + "\n".join(f"  {f}" for f in faults)


def _unfit(type_: TypeDef, stored: Obj) -> str:
    """What keeps a stored object from being merged into; that its lists say things twice does not."""
    return _together([f for f in checking.faults(type_, stored) if ": duplicate entries" not in f])


def shown_kind(obj: Obj) -> str:
    group, _, version = _text(obj.get("apiVersion")).rpartition("/")
    return f"{group}/{version}, Kind={_text(obj.get('kind'))}"


def shown_name(obj: Obj) -> str:
    """How messages name an object: `default/a; apps/v1, Kind=Deployment`."""
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return f"{_text(metadata.get('namespace'))}/{_text(metadata.get('name'))}; {shown_kind(obj)}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# ---- coming from kubectl's client-side apply ------------------------------------------------------------


def _owned_by_client_side_apply(live: Obj, api_version: str, type_: TypeDef) -> FieldSet:
    """What the last-applied annotation says and the live object still has: kubectl may take it over."""
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    if not text:
        return fieldset.EMPTY
    try:
        last = json.loads(text.encode())
        if not isinstance(last, dict) or last.get("apiVersion") != api_version or checking.faults(type_, last):
            return fieldset.EMPTY
        owned = membership.to_field_set(type_, last)
        comparison = comparing.compare(type_, last, live)
    except (json.SyntaxFault, BadList):
        return fieldset.EMPTY
    for changed in (comparison.modified, comparison.added, comparison.removed):
        owned = fieldset.difference(owned, changed)
    return owned


def _refresh_last_applied(merged: Obj, applied: Obj) -> Obj:
    """Keeps the annotation in step while kubectl goes on with server-side apply, so that one can go back."""
    metadata = merged.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    if not annotations.get(LAST_APPLIED):
        return merged
    config = json.clone(applied)
    own = (config.get("metadata") or {}).get("annotations") or {}
    own.pop(LAST_APPLIED, None)
    fresh = {**annotations, LAST_APPLIED: json.in_order(config).decode() + "\n"}
    if sum(len(k.encode()) + len(str(v).encode()) for k, v in fresh.items()) > _ANNOTATIONS_LIMIT:
        del fresh[LAST_APPLIED]
    return {**merged, "metadata": {**metadata, "annotations": fresh}}
