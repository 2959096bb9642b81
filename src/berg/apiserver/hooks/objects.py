"""Making sure that an object is there, whatever was there before."""

from __future__ import annotations

from berg.apiserver.registry.services import Services
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj


async def ensure(services: Services, resource: Resource, obj: Obj) -> bool:
    """Creates it when it is missing; True if it was."""
    meta = obj["metadata"]
    namespace = meta.get("namespace", "")
    await services.registry(resource).open()
    if services.get(resource, namespace, meta["name"]) is not None:
        return False
    try:
        await services.create(resource, namespace, obj)
    except ApiError as e:
        if e.code != 409:
            raise
        return False
    return True
