"""Managed fields: who set which field. Kept by every write, decided upon by server-side apply.

The sets and merges are the machinery's (`patch.apply`); here is when they are asked for, and under whose name.

Source: k8s.io/apimachinery pkg/util/managedfields.
"""

from __future__ import annotations

from berg.apiserver.registry.call import Call
from berg.machinery.status import Obj

MAX_MANAGER_BYTES = 128


def manager_of(given: str, user_agent: str) -> str:
    """The `fieldManager` parameter, else the user agent up to its first slash."""
    if given:
        return given
    prefix = user_agent.split("/", 1)[0]
    printable = "".join(c if c.isprintable() else "_" for c in prefix)
    return printable.encode()[:MAX_MANAGER_BYTES].decode("utf-8", "ignore") or "unknown"


async def on_create(call: Call, obj: Obj) -> None:
    obj["metadata"].pop("managedFields", None)


async def on_update(call: Call, obj: Obj, old: Obj) -> None:
    obj["metadata"].pop("managedFields", None)
