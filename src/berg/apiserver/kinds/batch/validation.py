"""Whether Jobs are sound.

Source: kubernetes pkg/apis/batch/validation, pkg/registry/batch/job/strategy.go.
"""

from __future__ import annotations

import copy

import orjson

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.apps.validation import labels_match, mismatch, template_labels
from berg.apiserver.kinds.batch import indexes
from berg.apiserver.kinds.batch.job import NAME_LABELS, UID_LABELS
from berg.apiserver.kinds.cells import has_condition
from berg.apiserver.kinds.core.pod_spec.validation import validate_template
from berg.apiserver.kinds.immutable import MESSAGE, immutable
from berg.apiserver.kinds.label_selectors import validate_selector
from berg.apiserver.kinds.sameness import same_struct
from berg.machinery import names
from berg.machinery.status import (
    OMITTED,
    FieldError,
    Obj,
    duplicate,
    invalid_value,
    not_supported,
    required,
    too_long,
    too_many,
)
from berg.machinery.typedef import type_named

_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)
HIGH = 100_000
"""parallelism and failed indexes of an indexed job; completions above it have limits of their own"""
LIMIT_WHEN_HIGH = 10_000
ACTIONS = ["Count", "FailIndex", "FailJob", "Ignore"]


def _quoted(values: list[str]) -> str:
    return f"[{' '.join(orjson.dumps(v).decode() for v in values)}]"


def validate_job(obj: Obj, old: Obj | None = None) -> list[FieldError]:
    spec, name = obj.get("spec") or {}, obj["metadata"].get("name") or ""
    had = template_labels(((old or {}).get("spec") or {}).get("template") or {}) or {}
    kinds_of_labels = 2 if old is None or (UID_LABELS[1] in had and NAME_LABELS[1] in had) else 1
    errors = _generated_selector(obj, spec, kinds_of_labels) + _job_spec_with_selector(spec)
    completions = spec.get("completions")
    if spec.get("completionMode") == "Indexed" and completions:
        host = f"{name}-{completions - 1}"
        if names.dns1123_label(host):
            why = f"will not able to create pod with invalid DNS label: {host}"
            errors.append(invalid_value("metadata.name", name, why))
    return errors


def _generated_selector(obj: Obj, spec: Obj, kinds_of_labels: int) -> list[FieldError]:
    """Jobs of old only have the first kind of labels, without a prefix."""
    if spec.get("manualSelector") or spec.get("selector") is None:
        return []
    metadata = obj["metadata"]
    uid, name = metadata.get("uid") or "", metadata.get("name") or ""
    errors: list[FieldError] = [] if uid else [required("metadata.uid")]
    labels = template_labels(spec.get("template") or {}) or {}
    pairs = zip(UID_LABELS[:kinds_of_labels], NAME_LABELS[:kinds_of_labels], strict=True)
    wanted = {label: value for u, n in pairs for label, value in ((u, uid), (n, name))}
    for label, value in wanted.items():
        at = f"spec.template.metadata.labels[{label}]"
        if label not in labels:
            errors.append(required(at, f"must be '{value}'"))
        elif labels[label] != value:
            errors.append(invalid_value(at, labels, f"must be '{value}'"))
    if not labels_match(spec["selector"], wanted):
        errors.append(invalid_value("spec.selector", spec["selector"], "`selector` not auto-generated"))
    return errors


def _job_spec_with_selector(spec: Obj) -> list[FieldError]:
    errors = validate_job_spec(spec, "spec")
    selector = spec.get("selector")
    if selector is None:
        errors.append(required("spec.selector"))
    else:
        errors += validate_selector(selector, "spec.selector")
    return errors + mismatch(spec, selector)


def validate_job_spec(spec: Obj, path: str) -> list[FieldError]:
    errors = [e for key in _COUNTS for e in checks.not_negative(f"{path}.{key}", spec.get(key))]
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        errors.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if (managed := spec.get("managedBy")) is not None:
        domain, _, rest = managed.partition("/")
        if not managed:
            errors.append(required(f"{path}.managedBy"))
        elif not domain or not rest:
            why = 'must be a domain-prefixed path (such as "acme.io/foo")'
            errors.append(invalid_value(f"{path}.managedBy", managed, why))
        else:
            errors += checks.named(f"{path}.managedBy", domain)
        if len(managed) > 63:
            errors.append(too_long(f"{path}.managedBy", "", 63))
    errors += _completion_mode(spec, path)
    policy = spec.get("podFailurePolicy")
    if policy is not None:
        errors += _failure_policy(spec, policy, f"{path}.podFailurePolicy")
    if (success := spec.get("successPolicy")) is not None:
        if spec.get("completionMode") != "Indexed":
            errors.append(invalid_value(f"{path}.successPolicy", success, "requires indexed completion mode"))
        else:
            errors += _success_policy(spec, success, f"{path}.successPolicy")
    if (replacement := spec.get("podReplacementPolicy")) is not None:
        supported = ["Failed"] if policy is not None else ["Failed", "TerminatingOrFailed"]
        if replacement not in supported:
            errors.append(not_supported(f"{path}.podReplacementPolicy", replacement, supported))
    template = spec.get("template") or {}
    errors += validate_template(template, f"{path}.template")
    restart, at = (template.get("spec") or {}).get("restartPolicy"), f"{path}.template.spec.restartPolicy"
    if restart in (None, "", "Always"):
        errors.append(required(at, 'valid values: "OnFailure", "Never"'))
    elif restart not in ("OnFailure", "Never"):
        errors.append(not_supported(at, restart, ["OnFailure", "Never"]))
    elif policy is not None and restart != "Never":
        errors.append(invalid_value(at, restart, 'only "Never" is supported when podFailurePolicy is specified'))
    return errors


def _completion_mode(spec: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    mode, completions, parallelism = spec.get("completionMode"), spec.get("completions"), spec.get("parallelism")
    failed, per_index = spec.get("maxFailedIndexes"), spec.get("backoffLimitPerIndex")
    if mode not in (None, "NonIndexed", "Indexed"):
        return [not_supported(f"{path}.completionMode", mode, ["NonIndexed", "Indexed"])]
    if mode != "Indexed":
        for key, value in (("backoffLimitPerIndex", per_index), ("maxFailedIndexes", failed)):
            if value is not None:
                errors.append(invalid_value(f"{path}.{key}", value, "requires indexed completion mode"))
        return errors
    if completions is None:
        errors.append(required(f"{path}.completions", "when completion mode is Indexed"))
    if (parallelism or 0) > HIGH:
        why = f"must be less than or equal to {HIGH} when completion mode is Indexed"
        errors.append(invalid_value(f"{path}.parallelism", parallelism, why))
    at = f"{path}.maxFailedIndexes"
    if completions is not None and failed is not None and failed > completions:
        errors.append(invalid_value(at, failed, "must be less than or equal to completions"))
    if (failed or 0) > HIGH:
        errors.append(invalid_value(at, failed, f"must be less than or equal to {HIGH}"))
    if (completions or 0) > HIGH and per_index is not None:
        if failed is None:
            errors.append(required(at, f"must be specified when completions is above {HIGH}"))
        why = (
            f"must be less than or equal to {LIMIT_WHEN_HIGH} when completions are above {HIGH} and used with backoff "
            "limit per index"
        )
        for key, value in (("parallelism", parallelism), ("maxFailedIndexes", failed)):
            if (value or 0) > LIMIT_WHEN_HIGH:
                errors.append(invalid_value(f"{path}.{key}", value, why))
    return errors


def _failure_policy(spec: Obj, policy: Obj, path: str) -> list[FieldError]:
    rules = policy.get("rules") or []
    errors: list[FieldError] = []
    if len(rules) > 20:
        errors.append(too_many(f"{path}.rules", len(rules), 20))
    pod = (spec.get("template") or {}).get("spec") or {}
    known = {c.get("name") for key in ("containers", "initContainers") for c in pod.get(key) or ()}
    for i, rule in enumerate(rules):
        at, action = f"{path}.rules[{i}]", rule.get("action")
        if not action:
            errors.append(required(f"{at}.action", f"valid values: {_quoted(ACTIONS)}"))
        elif action == "FailIndex":
            if spec.get("backoffLimitPerIndex") is None:
                errors.append(invalid_value(f"{at}.action", action, "requires the backoffLimitPerIndex to be set"))
        elif action not in ACTIONS:
            errors.append(not_supported(f"{at}.action", action, ACTIONS))
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or []
        if codes is not None:
            errors += _exit_codes(codes, f"{at}.onExitCodes", known)
        errors += _pod_conditions(conditions, f"{at}.onPodConditions")
        if codes is not None and conditions:
            why = "specifying both OnExitCodes and OnPodConditions is not supported"
            errors.append(invalid_value(at, OMITTED, why))
        if codes is None and not conditions:
            why = "specifying one of OnExitCodes and OnPodConditions is required"
            errors.append(invalid_value(at, OMITTED, why))
    return errors


def _pod_conditions(patterns: list[Obj], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if len(patterns) > 20:
        errors.append(too_many(path, len(patterns), 20))
    statuses = ["False", "True", "Unknown"]
    for i, pattern in enumerate(patterns):
        errors += checks.named(f"{path}[{i}].type", pattern.get("type") or "", names.qualified_name)
        errors += checks.one_of(
            f"{path}[{i}].status", pattern.get("status"), statuses, empty=f"valid values: {_quoted(statuses)}"
        )
    return errors


def _exit_codes(codes: Obj, path: str, known: set[str | None]) -> list[FieldError]:
    operator, values = codes.get("operator"), codes.get("values") or []
    errors = checks.one_of(f"{path}.operator", operator, ["In", "NotIn"], empty='valid values: ["In" "NotIn"]')
    name = codes.get("containerName")
    if name is not None and name not in known:
        why = "must be one of the container or initContainer names in the pod template"
        errors.append(invalid_value(f"{path}.containerName", name, why))
    at = f"{path}.values"
    if not values:
        errors.append(invalid_value(at, codes.get("values"), "at least one value is required"))
    elif len(values) > 255:
        errors.append(too_many(at, len(values), 255))
    seen: set[int] = set()
    for i, value in enumerate(values):
        if operator == "In" and value == 0:
            errors.append(invalid_value(f"{at}[{i}]", value, "must not be 0 for the In operator"))
        if value in seen:
            errors.append(duplicate(f"{at}[{i}]", value))
        seen.add(value)
    if values != sorted(values):
        errors.append(invalid_value(at, values, "must be ordered"))
    return errors


def _success_policy(spec: Obj, policy: Obj, path: str) -> list[FieldError]:
    rules, completions = policy.get("rules") or [], spec.get("completions") or 0
    errors: list[FieldError] = []
    if not rules:
        why = "at least one rules must be specified when the successPolicy is specified"
        errors.append(required(f"{path}.rules", why))
    if len(rules) > 20:
        errors.append(too_many(f"{path}.rules", len(rules), 20))
    for i, rule in enumerate(rules):
        at, count, listed = f"{path}.rules[{i}]", rule.get("succeededCount"), rule.get("succeededIndexes")
        if count is None and listed is None:
            why = "at least one of succeededCount or succeededIndexes must be specified"
            errors.append(required(at, why))
        if listed is not None and (fault := indexes.fault(listed, completions)):
            errors.append(invalid_value(f"{at}.succeededIndexes", listed, f"error parsing succeededIndexes: {fault}"))
        if count is not None:
            errors += checks.not_negative(f"{at}.succeededCount", count)
            if count > completions:
                why = f"must be less than or equal to {completions} (the number of specified completions)"
                errors.append(invalid_value(f"{at}.succeededCount", count, why))
            if listed is not None and count > (total := indexes.total(listed, completions)):
                why = (
                    f"must be less than or equal to {total} (the number of indexes in the specified succeededIndexes "
                    "field)"
                )
                errors.append(invalid_value(f"{at}.succeededCount", count, why))
    return errors


_IMMUTABLE = (
    "spec.completionMode",
    "spec.podFailurePolicy",
    "spec.backoffLimitPerIndex",
    "spec.managedBy",
    "spec.successPolicy",
)


def validate_job_update(obj: Obj, old: Obj) -> list[FieldError]:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    errors = validate_job(obj, old) + _job_spec_with_selector(spec)
    completions = spec.get("completions")
    if spec.get("completionMode") != "Indexed":
        errors += immutable(obj, old, "spec.completions")
    elif (
        completions != before.get("completions") and completions is not None and completions != spec.get("parallelism")
    ):
        why = "can only be modified in tandem with spec.parallelism"
        errors.append(invalid_value("spec.completions", completions, why))
    errors += immutable(obj, old, "spec.selector") + _template_update(obj, old)
    return errors + immutable(obj, old, *_IMMUTABLE)


def _template_update(obj: Obj, old: Obj) -> list[FieldError]:
    """A suspended job's template may still be aimed elsewhere, and asked for other amounts."""
    template = (obj.get("spec") or {}).get("template") or {}
    before = copy.deepcopy((old.get("spec") or {}).get("template") or {})
    if (old.get("spec") or {}).get("suspend"):
        status = old.get("status") or {}
        idle = (not status.get("startTime") or has_condition(old, "Suspended")) and not status.get("active")
        if idle:
            _take_scheduling(template, before)
            _take_resources(template, before)
            pod = template.get("spec") or {}
            if same_struct(type_named("io.k8s.api.core.v1.PodSpec"), pod, before.get("spec")):
                return []
            return [invalid_value("spec.template.spec", pod, MESSAGE)]
    if same_struct(type_named("io.k8s.api.core.v1.PodTemplateSpec"), template, before):
        return []
    return [invalid_value("spec.template", template, MESSAGE)]


def _take_scheduling(template: Obj, before: Obj) -> None:
    pod, was = template.get("spec") or {}, before.setdefault("spec", {})
    for key in ("nodeSelector", "tolerations", "schedulingGates"):
        was[key] = pod.get(key)
    node = (pod.get("affinity") or {}).get("nodeAffinity")
    affinity = {**(was.get("affinity") or {}), "nodeAffinity": node}
    kept = {k: v for k, v in affinity.items() if v is not None}
    was["affinity"] = kept or pod.get("affinity")  # nothing, whether it is left out or empty
    metadata = template.get("metadata") or {}
    before["metadata"] = {
        **(before.get("metadata") or {}),
        "annotations": metadata.get("annotations"),
        "labels": metadata.get("labels"),
    }


def _take_resources(template: Obj, before: Obj) -> None:
    for key in ("containers", "initContainers"):
        new, was = (template.get("spec") or {}).get(key) or [], before["spec"].get(key) or []
        if len(new) == len(was):
            for c, o in zip(new, was, strict=True):
                if c.get("name") == o.get("name"):
                    o["resources"] = c.get("resources")
