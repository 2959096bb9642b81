"""Mirror pods: what the API shows of a static pod. Made when missing, made again when the manifest changed.

Source: pkg/kubelet/pod/mirror_client.go, kubelet.go tryReconcileMirrorPods.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

from berg.client.rest import Client
from berg.kubelet import pod as p
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

log = logging.getLogger(__name__)


def is_of(mirror: Obj, pod: Obj) -> bool:
    return p.annotations(mirror).get(p.CONFIG_MIRROR) == p.annotations(pod).get(p.CONFIG_HASH)


async def reconcile(client: Client, pod: Obj, mirror: Obj | None, node: Callable[[], Obj | None]) -> None:
    if mirror is not None:
        if is_of(mirror, pod) and not p.deletion_requested(mirror):
            return
        await delete(client, mirror)
    await _create(client, pod, node())


async def _create(client: Client, pod: Obj, node: Obj | None) -> None:
    mirror = copy.deepcopy(pod)
    meta = mirror["metadata"]
    for key in ("uid", "resourceVersion", "creationTimestamp"):
        meta.pop(key, None)
    meta["annotations"][p.CONFIG_MIRROR] = meta["annotations"][p.CONFIG_HASH]
    mirror.pop("status", None)
    if node is not None:
        meta["ownerReferences"] = [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "name": node["metadata"]["name"],
                "uid": node["metadata"]["uid"],
                "controller": True,
            }
        ]
    try:
        await client.create(resource("pods"), mirror)
    except ApiError as e:
        if e.reason != "AlreadyExists":
            log.warning("mirror pod of %s: %s", p.show(pod), e.message)


async def delete(client: Client, mirror: Obj) -> None:
    try:
        await client.delete(resource("pods"), p.namespace(mirror), p.name(mirror), grace_period_s=0, uid=p.uid(mirror))
    except ApiError as e:
        if e.code not in (404, 409):
            log.warning("mirror pod %s: %s", p.show(mirror), e.message)
