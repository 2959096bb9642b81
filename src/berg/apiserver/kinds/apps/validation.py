"""Whether workloads are sound.

Source: kubernetes pkg/apis/apps/validation, pkg/apis/core/validation ValidateReplicationController.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import checks, int_or_percent
from berg.apiserver.kinds.core.pod_spec.validation import validate_template, validate_template_metadata
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.kinds.label_selectors import is_empty, validate_selector
from berg.apiserver.kinds.sameness import same_struct
from berg.machinery import names
from berg.machinery.labels import Selector
from berg.machinery.status import (
    FieldError,
    Obj,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from berg.machinery.typedef import type_named

MISMATCH = "`selector` does not match template `labels`"


def labels_match(selector: Obj | None, labels: Obj) -> bool:
    """Whether a selector selects the labels; one that can't be read is refused elsewhere. None selects nothing."""
    if selector is None:
        return False
    if validate_selector(selector, ""):
        return True
    try:
        return Selector.of(selector).matches(labels)
    except ValueError:
        return True


def template_labels(template: Obj) -> Obj | None:
    return (template.get("metadata") or {}).get("labels") or None


def mismatch(spec: Obj, selector: Obj | None, path: str = "spec.template") -> list[FieldError]:
    """The template's labels are not what the selector selects."""
    labels = template_labels(spec.get("template") or {})
    if labels_match(selector, labels or {}):
        return []
    return [invalid_value(f"{path}.metadata.labels", labels, MISMATCH)]


def _selector(spec: Obj, kind: str, path: str = "spec") -> list[FieldError]:
    selector = spec.get("selector")
    if selector is None:
        return [required(f"{path}.selector")]
    errors = validate_selector(selector, f"{path}.selector")
    if is_empty(selector):
        errors.append(invalid_value(f"{path}.selector", selector, f"empty selector is invalid for {kind}"))
    return errors


def _template(spec: Obj, owner: str, path: str = "spec.template") -> list[FieldError]:
    """A template of pods that run for ever, selected by their owner; not looked at under a selector that says
    nothing sound."""
    template, selector = spec.get("template") or {}, spec.get("selector")
    if validate_selector(selector, ""):
        return [invalid_value("spec.selector", selector, "" if owner == "StatefulSet" else "invalid label selector")]
    errors = mismatch(spec, selector, path) + validate_template(template, path)
    if owner == "StatefulSet":  # its metadata is looked at again
        errors += validate_template_metadata(template, path)
    return errors + _runs_for_ever(template, owner, path)


def _runs_for_ever(template: Obj, owner: str, path: str) -> list[FieldError]:
    pod = template.get("spec") or {}
    errors: list[FieldError] = []
    if pod.get("restartPolicy") != "Always":
        errors.append(not_supported(f"{path}.spec.restartPolicy", pod.get("restartPolicy") or "", ["Always"]))
    if pod.get("activeDeadlineSeconds") is not None:
        why = f"activeDeadlineSeconds in {owner} is not Supported"
        errors.append(forbidden_field(f"{path}.spec.activeDeadlineSeconds", why))
    return errors


def _counts(spec: Obj, *keys: str) -> list[FieldError]:
    return [e for key in keys for e in checks.not_negative(f"spec.{key}", spec.get(key))]


def _collisions(status: Obj, old: Obj) -> list[FieldError]:
    before = (old.get("status") or {}).get("collisionCount")
    count = status.get("collisionCount")
    if before is None or (count is not None and count >= before):
        return []
    return [invalid_value("status.collisionCount", count or 0, "cannot be decremented")]


def validate_replica_counts(obj: Obj, old: Obj) -> list[FieldError]:
    """The status of a Deployment, ReplicaSet or ReplicationController."""
    status = obj.get("status") or {}
    errors: list[FieldError] = []
    for key in (
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ):
        errors += checks.not_negative(f"status.{key}", status.get(key))
    total = status.get("replicas") or 0
    own = "updatedReplicas" if obj["kind"] == "Deployment" else "fullyLabeledReplicas"
    for key in (own, "readyReplicas", "availableReplicas"):
        if (status.get(key) or 0) > total:
            why = "cannot be greater than status.replicas"
            errors.append(invalid_value(f"status.{key}", status.get(key) or 0, why))
    if (status.get("availableReplicas") or 0) > (status.get("readyReplicas") or 0):
        why = "cannot be greater than readyReplicas"
        errors.append(invalid_value("status.availableReplicas", status.get("availableReplicas") or 0, why))
    return errors + _collisions(status, old)


def validate_deployment(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = _counts(spec, "replicas") + _selector(spec, "deployment") + _template(spec, "ReplicaSet")
    strategy = spec.get("strategy") or {}
    rolling, kind = strategy.get("rollingUpdate"), strategy.get("type")
    if kind == "Recreate":
        if rolling is not None:
            why = "may not be specified when strategy `type` is 'Recreate'"
            errors.append(forbidden_field("spec.strategy.rollingUpdate", why))
    elif kind == "RollingUpdate":
        at = "spec.strategy.rollingUpdate"
        unavailable, surge = (rolling or {}).get("maxUnavailable"), (rolling or {}).get("maxSurge")
        errors += int_or_percent.not_negative(f"{at}.maxUnavailable", unavailable)
        errors += int_or_percent.not_negative(f"{at}.maxSurge", surge)
        if int_or_percent.number(unavailable) == 0 and int_or_percent.number(surge) == 0:
            errors.append(invalid_value(f"{at}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
        errors += int_or_percent.at_most_all(f"{at}.maxUnavailable", unavailable)
    else:
        errors.append(not_supported("spec.strategy", strategy, ["Recreate", "RollingUpdate"]))
    errors += _counts(spec, "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        errors.append(invalid_value("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return errors


def validate_deployment_update(obj: Obj, old: Obj) -> list[FieldError]:
    return validate_deployment(obj) + immutable(obj, old, "spec.selector")


def validate_replica_set(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = _counts(spec, "replicas", "minReadySeconds")
    return errors + _selector(spec, "deployment") + _template(spec, "ReplicaSet")


def validate_replica_set_update(obj: Obj, old: Obj) -> list[FieldError]:
    return validate_replica_set(obj) + immutable(obj, old, "spec.selector")


def validate_replication_controller(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    errors = _counts(spec, "minReadySeconds")
    selector = spec.get("selector") or {}
    if not selector:
        errors.append(required("spec.selector"))
    errors += _counts(spec, "replicas")
    template = spec.get("template")
    if template is None:
        return [*errors, required("spec.template")]
    labels = template_labels(template) or {}
    if any(labels.get(key) != value for key, value in selector.items()):  # a plain map: it need not be sound
        errors.append(invalid_value("spec.template.metadata.labels", labels or None, MISMATCH))
    errors += validate_template(template, "spec.template")
    return errors + _runs_for_ever(template, "ReplicationController", "spec.template")


def validate_daemon_set(obj: Obj) -> list[FieldError]:
    spec = obj.get("spec") or {}
    template, selector = spec.get("template") or {}, spec.get("selector")
    errors = validate_selector(selector, "spec.selector") + mismatch(spec, selector)
    if selector is not None and is_empty(selector):
        errors.append(invalid_value("spec.selector", selector, "empty selector is invalid for daemonset"))
    errors += validate_template(template, "spec.template") + _runs_for_ever(template, "DaemonSet", "spec.template")
    errors += _counts(spec, "minReadySeconds")
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "RollingUpdate":
        errors += _rolling_daemon_set(strategy.get("rollingUpdate") or {}, "spec.updateStrategy.rollingUpdate")
    elif strategy.get("type") != "OnDelete":
        errors.append(not_supported("spec.updateStrategy", strategy, ["RollingUpdate", "OnDelete"]))
    return errors + _counts(spec, "revisionHistoryLimit")


def _rolling_daemon_set(rolling: Obj, path: str) -> list[FieldError]:
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    errors: list[FieldError] = []
    for key, value in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        errors += int_or_percent.not_negative(f"{path}.{key}", value)
        errors += int_or_percent.at_most_all(f"{path}.{key}", value)
    if int_or_percent.number(unavailable) and int_or_percent.number(surge):
        errors.append(invalid_value(f"{path}.maxSurge", surge, "may not be set when maxUnavailable is non-zero"))
    elif not int_or_percent.number(unavailable) and not int_or_percent.number(surge):
        errors.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return errors


def validate_daemon_set_update(obj: Obj, old: Obj) -> list[FieldError]:
    return immutable(obj, old, "spec.selector") + validate_daemon_set(obj)


_SCHEDULED = (
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
)


def validate_daemon_set_status(obj: Obj, old: Obj) -> list[FieldError]:
    status = obj.get("status") or {}
    errors = [e for key in _SCHEDULED for e in checks.not_negative(f"status.{key}", status.get(key))]
    return errors + _collisions(status, old)


def validate_stateful_set(obj: Obj) -> list[FieldError]:
    from berg.apiserver.kinds.core.volume_validation import validate_claim_spec

    spec = obj.get("spec") or {}
    claims: list[FieldError] = []
    for i, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        claims += validate_claim_spec(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{i}].spec")
    service = spec.get("serviceName")
    return _stateful_set_spec(
        spec, claims, checks.named("spec.serviceName", service, names.dns1123_label) if service else []
    )


def _stateful_set_spec(
    spec: Obj, claims: Sequence[FieldError] = (), service: Sequence[FieldError] = ()
) -> list[FieldError]:
    """`claims`, `service`: the faults of what can't change later, in their places among the others."""
    errors: list[FieldError] = []
    policy = spec.get("podManagementPolicy")
    if not policy:
        errors.append(required("spec.podManagementPolicy"))
    elif policy not in ("OrderedReady", "Parallel"):
        errors.append(invalid_value("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    strategy = spec.get("updateStrategy") or {}
    rolling, at = strategy.get("rollingUpdate"), "spec.updateStrategy"
    if not strategy.get("type"):
        errors.append(required(at))
    elif strategy["type"] == "OnDelete":
        if rolling is not None:
            why = "only allowed for updateStrategy 'RollingUpdate'"
            errors.append(invalid_value(f"{at}.rollingUpdate", rolling, why))
    elif strategy["type"] != "RollingUpdate":
        errors.append(invalid_value(at, strategy, "must be 'RollingUpdate' or 'OnDelete'"))
    elif rolling is not None:
        errors += checks.not_negative(f"{at}.rollingUpdate.partition", rolling.get("partition"))
        if (unavailable := rolling.get("maxUnavailable")) is not None:
            where = f"{at}.rollingUpdate.maxUnavailable"
            errors += int_or_percent.not_negative(where, unavailable)
            if int_or_percent.number(unavailable) == 0:
                errors.append(invalid_value(where, unavailable, "cannot be 0"))
            errors += int_or_percent.at_most_all(where, unavailable)
    retention = spec.get("persistentVolumeClaimRetentionPolicy")
    if retention is not None:
        for key in ("whenDeleted", "whenScaled"):
            where = f"spec.persistentVolumeClaimRetentionPolicy.{key}"
            errors += checks.one_of(where, retention.get(key), ["Retain", "Delete"], empty=None)
    errors += [*claims, *_counts(spec, "replicas", "minReadySeconds")]
    errors += checks.not_negative("spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    errors += service
    errors += _selector(spec, "statefulset")
    return errors + _template({**spec, "template": _with_claims(spec)}, "StatefulSet")


def _with_claims(spec: Obj) -> Obj:
    """The template as its pods will be: each claim template is a volume of its name, host names are given."""
    template = spec.get("template") or {}
    given = spec.get("volumeClaimTemplates") or ()
    claims = list(dict.fromkeys((c.get("metadata") or {}).get("name") or "" for c in given))
    pod = {k: v for k, v in (template.get("spec") or {}).items() if k not in ("hostname", "subdomain")}
    if claims:
        volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
        pod["volumes"] = volumes + [v for v in pod.get("volumes") or () if v.get("name") not in claims]
    return {**template, "spec": pod}


_STATEFUL_SET_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def validate_stateful_set_update(obj: Obj, old: Obj) -> list[FieldError]:
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    errors = _stateful_set_spec(spec)
    rest = [{k: v for k, v in s.items() if k not in _STATEFUL_SET_MUTABLE} for s in (spec, before)]
    if not same_struct(type_named("io.k8s.api.apps.v1.StatefulSetSpec"), *rest):
        why = (
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
        )
        errors.append(forbidden_field("spec", why))
    return errors


def validate_stateful_set_status(obj: Obj, old: Obj) -> list[FieldError]:
    status = obj.get("status") or {}
    errors: list[FieldError] = []
    counted = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
    for key in ("replicas", *counted, "observedGeneration", "collisionCount"):
        errors += checks.not_negative(f"status.{key}", status.get(key))
    for key in counted:
        if (status.get(key) or 0) > (status.get("replicas") or 0):
            why = "cannot be greater than status.replicas"
            errors.append(invalid_value(f"status.{key}", status.get(key) or 0, why))
    if (status.get("availableReplicas") or 0) > (status.get("readyReplicas") or 0):
        why = "cannot be greater than status.readyReplicas"
        errors.append(invalid_value("status.availableReplicas", status.get("availableReplicas") or 0, why))
    return errors + _collisions(status, old)
