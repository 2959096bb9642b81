"""Annotation node.alpha.kubernetes.io/ttl: how long a kubelet may trust a secret or config map it has read, longer
in larger clusters. Source: pkg/controller/ttl.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import Obj

SETTLE_S = 0.5
ANNOTATION = "node.alpha.kubernetes.io/ttl"
STEPS = ((100, 0), (500, 15), (1000, 30), (2000, 60), (2**31, 300))
"""up to so many nodes, so many seconds; going down happens at nine tenths of a step"""


class TTLController(APIController):
    name = "ttl-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("nodes")
        self.nodes = ctx.informer("nodes")
        self._step = 0
        self.nodes.add_handler(self._node_added, self._node_changed, lambda node: self._count())

    def _node_added(self, node: Obj) -> None:
        # Not at once: while many nodes come, the step moves, and each is told only where it ends.
        self.queue.add_after(meta.key(node), SETTLE_S)
        self._count()

    def _node_changed(self, old: Obj, new: Obj) -> None:
        if meta.annotations(old).get(ANNOTATION) != meta.annotations(new).get(ANNOTATION):
            self.enqueue(new)

    def _count(self) -> None:
        count, before = len(self.nodes.lister), self._step
        while count > STEPS[self._step][0]:
            self._step += 1
        while self._step and count < STEPS[self._step - 1][0] * 0.9:
            self._step -= 1
        if self._step != before:
            for node in self.nodes.lister:
                self.queue.add_after(meta.key(node), SETTLE_S)

    async def reconcile(self, key: str) -> None:
        node = self.nodes.lister.get_key(key)
        wanted = str(STEPS[self._step][1])
        if node is not None and meta.annotations(node).get(ANNOTATION) != wanted:
            await self.client.patch(self.resource, None, key, {"metadata": {"annotations": {ANNOTATION: wanted}}})
