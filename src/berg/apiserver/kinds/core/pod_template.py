"""Pod templates: the kind PodTemplate, and the `template` of every workload.

Source: kubernetes pkg/registry/core/podtemplate, pkg/apis/core/validation ValidatePodTemplateSpec.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.pod_spec.defaults import spec_defaults
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj


def template_defaults(template: Obj | None) -> None:
    if isinstance(template, dict) and isinstance(template.get("spec"), dict):
        spec_defaults(template["spec"])


def _spec(obj: Obj) -> Obj:
    return (obj.get("template") or {}).get("spec") or {}


@strategy_for("", "podtemplates")
class PodTemplateStrategy(Strategy):
    has_status = False
    _wide = cells.containers_and_images(_spec)
    columns = [
        cells.NAME,
        Column("Containers", _wide[0].value),
        Column("Images", _wide[1].value),
        Column("Pod Labels", lambda o: cells.labels(((o.get("template") or {}).get("metadata") or {}).get("labels"))),
    ]

    def default(self, obj: Obj) -> None:
        template_defaults(obj.get("template"))

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.pod_spec.validation import validate_template

        return validate_template(obj.get("template") or {}, "template")

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds.core.pod_spec.warnings import template_warnings

        return template_warnings(obj.get("template") or {}, "template")
