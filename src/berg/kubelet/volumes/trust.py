"""Trust bundles for projected volumes: ClusterTrustBundle objects as one PEM file without repetitions.

The objects are followed only once a pod of this node has asked for one.

Source: KEP-3257, pkg/kubelet/clustertrustbundle.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from berg.client.informer import Informer, InformerFactory
from berg.kubelet.volumes.content import VolumeError
from berg.machinery.labels import Selector
from berg.machinery.resources import resource
from berg.machinery.status import Obj

SYNC_TIMEOUT_S = 5.0
_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)


class TrustBundles:
    def __init__(self, informers: InformerFactory, changed: Callable[[], None]) -> None:
        self._informers = informers
        self._changed = changed
        self._informer: Informer | None = None
        self._followed = False

    async def pem(self, source: Obj) -> str:
        """Raises VolumeError when there is none and it is not optional."""
        if self._informer is None:
            self._informer = self._informers.informer(resource("clustertrustbundles.certificates.k8s.io"))
            self._informer.start()
        if not self._followed:
            try:
                async with asyncio.timeout(SYNC_TIMEOUT_S):
                    await self._informer.synced.wait()
            except TimeoutError as e:
                raise VolumeError("ClusterTrustBundles could not be read yet") from e
            self._followed = True
            self._informer.add_handler(
                lambda o: self._changed(), lambda old, new: self._changed(), lambda o: self._changed()
            )
        found = self._find(source)
        if not found and not source.get("optional"):
            what = f'"{source["name"]}"' if source.get("name") else f'for signer "{source.get("signerName")}"'
            raise VolumeError(f"ClusterTrustBundle {what} not found")
        return join([o["spec"]["trustBundle"] for o in found])

    def _find(self, source: Obj) -> list[Obj]:
        assert self._informer is not None
        if source.get("name"):
            one = self._informer.lister.get(None, source["name"])
            return [one] if one is not None else []
        selector = Selector.of(source.get("labelSelector"))
        return [
            o
            for o in self._informer.lister.list(None, selector)
            if o["spec"].get("signerName") == source.get("signerName")
        ]


def join(bundles: list[str]) -> str:
    """All certificates, each once, in an order that does not depend on the objects'."""
    blocks = {b.strip() for text in bundles for b in _BLOCK.findall(text)}
    return "".join(b + "\n" for b in sorted(blocks))
