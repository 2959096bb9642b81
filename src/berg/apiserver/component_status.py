"""ComponentStatuses: nothing is stored, the parts are asked.

Source: kubernetes pkg/registry/core/componentstatus (deprecated since v1.19).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from berg.apiserver.http.message import Request, Response
from berg.apiserver.kinds import cells
from berg.apiserver.registry import negotiation, table
from berg.apiserver.registry.negotiation import LIST_SHAPES, OBJECT_SHAPES
from berg.apiserver.registry.services import Services
from berg.apiserver.registry.strategy import strategy_of
from berg.apiserver.requestinfo import RequestInfo
from berg.machinery import status
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

_PATIENCE_S = 2.0


class ComponentStatuses:
    def __init__(self, services: Services, store_fault: Callable[[], str | None]) -> None:
        self._services = services
        self._store_fault = store_fault

    async def handle(self, request: Request, resource: Resource) -> Response:
        info: RequestInfo = request.info
        items = [await self._component(name) for name in self._services.config.component_ports]
        items.append(_object("etcd-0", self._store_fault(), "ok"))
        cells.use_clock(self._services.clock)
        if info.verb == "get":
            accepted = negotiation.negotiate(request, OBJECT_SHAPES)
            obj = next((i for i in items if i["metadata"]["name"] == info.name), None)
            if obj is None:
                raise status.not_found("", "componentstatus", info.name)
            if accepted.shape == "Table":
                obj = table.table(strategy_of(resource), [obj], {}, table.included(request))
            return negotiation.respond(request, obj, accepted)
        accepted = negotiation.negotiate(request, LIST_SHAPES)
        if accepted.shape == "Table":
            shown = table.table(strategy_of(resource), items, {}, table.included(request))
        else:
            shown = {"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items}
        return negotiation.respond(request, shown, accepted)

    async def _component(self, name: str) -> Obj:
        from berg.apiserver.http.forward import Target, Unreachable, client_tls, forward

        port = self._services.config.component_ports[name]
        target = Target("127.0.0.1", port, "/healthz", tls=client_tls())
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await forward(Request("GET", "/healthz"), target)
        except (Unreachable, TimeoutError) as e:
            return _object(name, f'Get "https://127.0.0.1:{port}/healthz": {e}', "")
        fault = None if answer.status == 200 else f"the answer was {answer.status}"
        return _object(name, fault, answer.body.decode("utf-8", "replace"))


def _object(name: str, fault: str | None, message: str) -> Obj:
    condition: Obj = {"type": "Healthy", "status": "True" if fault is None else "False"}
    if fault is None:
        condition["message"] = message
    else:
        condition["message"] = fault
    return {
        "kind": "ComponentStatus",
        "apiVersion": "v1",
        "metadata": {"name": name},
        "conditions": [condition],
    }
