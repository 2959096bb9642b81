"""ServiceAccounts.

Source: kubernetes pkg/registry/core/serviceaccount/strategy.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Context, Strategy, strategy_for
from berg.machinery.status import Obj

ENFORCE_MOUNTABLE = "kubernetes.io/enforce-mountable-secrets"


@strategy_for("", "serviceaccounts")
class ServiceAccountStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    has_status = False
    generation = False
    columns = [cells.NAME, cells.AGE]

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        self._names_only(obj)

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        self._names_only(obj)

    def _names_only(self, obj: Obj) -> None:
        """Secrets are referred to by name alone."""
        if secrets := obj.get("secrets"):
            obj["secrets"] = [{"name": s["name"]} if s.get("name") else {} for s in secrets]

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        annotated = ENFORCE_MOUNTABLE in (obj["metadata"].get("annotations") or {})
        if not annotated or (old and ENFORCE_MOUNTABLE in (old["metadata"].get("annotations") or {})):
            return ()
        return (
            f"metadata.annotations[{ENFORCE_MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate "
            "access to mounted secrets",
        )
