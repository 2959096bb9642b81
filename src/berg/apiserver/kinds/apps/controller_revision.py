"""ControllerRevisions.

Source: kubernetes pkg/registry/apps/controllerrevision, pkg/apis/apps/validation ValidateControllerRevision.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells, checks
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.meta import owner_controller
from berg.machinery.status import FieldError, Obj, required


def _controller(obj: Obj) -> str:
    owner = owner_controller(obj)
    if owner is None:
        return "<none>"
    group = owner.get("apiVersion", "").rpartition("/")[0]
    kind = f"{owner.get('kind', '')}.{group}" if group else owner.get("kind", "")
    return f"{kind.lower()}/{owner.get('name', '')}"


@strategy_for("apps", "controllerrevisions")
class ControllerRevisionStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    has_status = False
    generation = False
    columns = [
        cells.NAME,
        Column("Controller", _controller),
        Column("Revision", lambda o: o.get("revision") or 0),
        cells.AGE,
    ]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        if obj.get("data") is None:
            errors.append(required("data", "data is mandatory"))
        elif not isinstance(obj["data"], dict):
            errors.append(required("data", "data must be a valid JSON object"))
        return errors + checks.not_negative("revision", obj.get("revision"))

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        return checks.not_negative("revision", obj.get("revision")) + immutable(obj, old, "data")
