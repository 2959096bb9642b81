"""ComponentStatus (deprecated): only a table.

Source: kubernetes pkg/printers printComponentStatus.
"""

from __future__ import annotations

from collections.abc import Callable

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Strategy, strategy_for
from berg.machinery.status import Obj


def _healthy(key: str) -> Callable[[Obj], str]:
    def value(obj: Obj) -> str:
        for c in obj.get("conditions") or ():
            if c.get("type") == "Healthy":
                if key == "status":
                    return "Healthy" if c.get("status") == "True" else "Unhealthy"
                return c.get(key) or ""
        return "Unknown" if key == "status" else ""

    return value


@strategy_for("", "componentstatuses")
class ComponentStatusStrategy(Strategy):
    namespaced = False
    has_status = False
    generation = False
    columns = [
        cells.NAME,
        Column("Status", _healthy("status")),
        Column("Message", _healthy("message")),
        Column("Error", _healthy("error")),
    ]
