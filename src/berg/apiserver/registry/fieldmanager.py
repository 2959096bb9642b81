"""Managed fields: who set which field. Kept by every write, decided upon by server-side apply.

The sets and merges are the machinery's (`patch.apply`); here is when they are asked for, under whose name, and in
which version: a writer owns fields of the version he wrote in.

Source: k8s.io/apimachinery pkg/util/managedfields.
"""

from __future__ import annotations

import orjson

from berg.apiserver.registry import conversion
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.strategy import STATUS_METADATA
from berg.machinery.patch import apply as machinery
from berg.machinery.status import Obj
from berg.machinery.typedef import TypeDef

MAX_MANAGER_BYTES = 128


def manager_of(given: str, user_agent: str) -> str:
    """The `fieldManager` parameter, else the user agent up to its first slash."""
    if given:
        return given
    prefix = user_agent.partition("/")[0]
    if prefix.isascii() and prefix.isprintable():
        return prefix[:MAX_MANAGER_BYTES] or "unknown"
    printable = "".join(c if c.isprintable() else "_" for c in prefix)
    return printable.encode()[:MAX_MANAGER_BYTES].decode("utf-8", "ignore") or "unknown"


def reset_fields(call: Call) -> tuple[tuple[str, ...], ...]:
    """What the endpoint does not write, and nobody comes to own through it."""
    strategy = call.registry.strategy
    if call.subresource == "":
        return (*strategy.unowned, *((("status",),) if strategy.has_status else ()))
    if call.subresource == "status":
        kept = (field for field in STATUS_METADATA if field not in strategy.status_metadata)
        return (("spec",), *(("metadata", field) for field in kept))
    return ()


async def on_create(call: Call, obj: Obj) -> None:
    await on_update(call, obj, None)


async def on_update(call: Call, obj: Obj, old: Obj | None) -> None:
    """Sets obj's managedFields to what they are after this write. Both are in the storage version."""
    registry, resource = call.registry, call.resource
    type_ = registry.type_of(resource)
    if type_ is None:
        obj["metadata"].pop("managedFields", None)
        return
    live, new = old, obj
    if not registry.is_stored_as(resource):
        copies = [orjson.loads(orjson.dumps(o)) for o in (obj, old) if o is not None]
        versioned = await registry.many_to_version(copies, resource)
        new, live = versioned[0], versioned[1] if old is not None else None
    tracked = machinery.update(
        live,
        new,
        call.field_manager,
        api_version=resource.api_version,
        subresource=call.subresource,
        now=call.context.clock.now(),
        type=type_,
        reset=reset_fields(call),
        convert=converter(call),
    )
    entries = tracked["metadata"].get("managedFields")
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def converter(call: Call) -> machinery.Convert | None:
    """How entries of other versions are looked at. Only where versions differ in more than their name."""
    registry = call.registry
    if len(registry.versions) < 2:
        return None

    def convert(obj: Obj, api_version: str) -> tuple[Obj, TypeDef] | None:
        target = registry.versions.get(api_version)
        type_ = registry.type_of(target) if target is not None else None
        if target is None or type_ is None:
            return None
        source = registry.versions.get(obj.get("apiVersion", ""), registry.storage)
        if registry.custom or source.api_version == target.api_version:
            return obj, type_
        return conversion.convert(orjson.loads(orjson.dumps(obj)), source, target), type_

    return convert
