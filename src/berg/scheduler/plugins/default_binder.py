"""DefaultBinder: writes the binding to the API server."""

from __future__ import annotations

from berg.machinery.resources import resource
from berg.machinery.status import ApiError
from berg.scheduler.framework.interface import Bind, Cycle
from berg.scheduler.framework.status import Status, error


class DefaultBinder(Bind):
    name = "DefaultBinder"

    async def bind(self, cycle: Cycle, node: str) -> Status | None:
        pod = cycle.pod
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.obj["metadata"].get("uid", "")},
            "target": {"kind": "Node", "name": node},
        }
        try:
            await self.handle.client.create(
                resource("pods"), binding, pod.namespace, name=pod.name, subresource="binding"
            )
        except ApiError as e:
            return error(e.message)
        return None
