"""Reading and writing what every object has: its key, owners, conditions, deletion marks."""

from datetime import datetime
from typing import Any

from berg.machinery.clock import rfc3339

Obj = dict[str, Any]


def key(obj: Obj) -> str:
    """`namespace/name`, or `name` for what has no namespace."""
    m = obj["metadata"]
    namespace = m.get("namespace")
    return f"{namespace}/{m['name']}" if namespace else str(m["name"])


def split_key(key: str) -> tuple[str, str]:
    """(namespace, name); the namespace is empty where there is none."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def name(obj: Obj) -> str:
    return str(obj["metadata"].get("name", ""))


def namespace(obj: Obj) -> str:
    return obj["metadata"].get("namespace") or ""


def uid(obj: Obj) -> str:
    return obj["metadata"].get("uid") or ""


def labels(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def annotations(obj: Obj) -> dict[str, str]:
    return obj["metadata"].get("annotations") or {}


def is_deleting(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def owner_controller(obj: Obj) -> Obj | None:
    """The owner reference with `controller: true`."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return dict(ref)
    return None


def is_controlled_by(obj: Obj, owner: Obj) -> bool:
    ref = owner_controller(obj)
    return ref is not None and ref.get("uid") == uid(owner)


def controller_ref(owner: Obj, *, block: bool = True) -> Obj:
    """An owner reference to `owner` (which has apiVersion and kind) as its controller."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name(owner),
        "uid": uid(owner),
        "controller": True,
        "blockOwnerDeletion": block,
    }


def condition(obj: Obj, type: str) -> Obj | None:
    """The condition of that type in status.conditions."""
    for c in (obj.get("status") or {}).get("conditions") or ():
        if c.get("type") == type:
            return dict(c)
    return None


def condition_true(obj: Obj, type: str) -> bool:
    found = condition(obj, type)
    return found is not None and found.get("status") == "True"


def set_condition(conditions: list[Obj], new: Obj, now: datetime) -> bool:
    """Puts `new` in place of the one of its type; lastTransitionTime moves only when status changes.

    Returns whether anything changed.
    """
    for i, old in enumerate(conditions):
        if old.get("type") != new["type"]:
            continue
        moved = old.get("status") != new["status"]
        merged = {**old, **new, "lastTransitionTime": rfc3339(now) if moved else old.get("lastTransitionTime")}
        conditions[i] = merged
        return merged != old
    conditions.append({**new, "lastTransitionTime": new.get("lastTransitionTime") or rfc3339(now)})
    return True


def object_reference(obj: Obj, field_path: str = "") -> Obj:
    """A core/v1 ObjectReference, as in `Event.involvedObject`."""
    ref = {
        "kind": obj["kind"],
        "apiVersion": obj["apiVersion"],
        "name": name(obj),
        "uid": uid(obj),
        "resourceVersion": obj["metadata"].get("resourceVersion", ""),
    }
    if namespace(obj):
        ref["namespace"] = namespace(obj)
    if field_path:
        ref["fieldPath"] = field_path
    return ref
