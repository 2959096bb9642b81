"""What all workloads share: a selector over pods and a template that they are made from.

Source: kubernetes pkg/apis/apps/validation, pkg/registry/apps/*/strategy.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.pod_template import template_defaults
from berg.apiserver.registry.strategy import Column, Context, Strategy
from berg.machinery import names
from berg.machinery.status import Obj


def count(path: str) -> Callable[[Obj], int]:
    """An integer cell; what is missing is 0."""
    value = cells.at(path, 0)
    return lambda obj: int(value(obj) or 0)


def selector_column(path: str = "spec.selector") -> Column:
    selector = cells.at(path, None)
    return Column("Selector", lambda o: cells.label_selector(selector(o)), priority=1)


class WorkloadStrategy(Strategy):
    initial_status: Obj = {}
    """what the status of a new object says, zeros that are always written"""
    spec_defaults: Sequence[tuple[str, Any]] = ()
    """plain defaults of fields directly under spec"""
    label_recommended = True
    """names that are no DNS labels make bad host names: a warning"""

    def default(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec is None:
            spec = obj["spec"] = {}
        for key, value in self.spec_defaults:
            if spec.get(key) is None:
                spec[key] = value
        template_defaults(spec.get("template"))

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = dict(self.initial_status)

    def template_of(self, obj: Obj) -> tuple[Obj, str]:
        """The pod template and its path."""
        return (obj.get("spec") or {}).get("template") or {}, "spec.template"

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds.core.pod_spec.warnings import template_warnings

        found: list[str] = []
        if (
            old is None
            and self.label_recommended
            and (faults := names.dns1123_label(obj["metadata"].get("name") or ""))
        ):
            found.append(
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; "
                f"a DNS label is recommended: [{' '.join(faults)}]"
            )
        if old is None or obj["metadata"].get("generation") != old["metadata"].get("generation"):
            template, path = self.template_of(obj)
            found += [*self.spec_warnings(obj), *template_warnings(template, path)]
        return found

    def spec_warnings(self, obj: Obj) -> Sequence[str]:
        """Of a new or changed spec, but for its template."""
        return ()
