"""What may change in a pod: very little; more through /ephemeralcontainers and /resize (`resize`).

Source: kubernetes pkg/apis/core/validation ValidatePodUpdate, ValidatePodEphemeralContainersUpdate;
pkg/registry/core/pod/strategy.go.
"""

from __future__ import annotations

import copy
from typing import Any

from berg.apiserver.kinds import checks
from berg.apiserver.kinds.core.pod_spec.scheduling import REQUIRED, validate_tolerations
from berg.apiserver.kinds.core.pod_spec.validation import APP_ARMOR_PREFIX, MIRROR, validate_pod
from berg.apiserver.kinds.sameness import same, same_struct
from berg.machinery.internal import difference
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, required
from berg.machinery.typedef import type_named

POD_SPEC, DEBUGGING = "io.k8s.api.core.v1.PodSpec", "io.k8s.api.core.v1.EphemeralContainer"
UPDATABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
    "previously negative)"
)


def annotation_updates(obj: Obj, old: Obj) -> list[FieldError]:
    new, before = obj["metadata"].get("annotations") or {}, old["metadata"].get("annotations") or {}
    errors: list[FieldError] = []
    for key in before.keys() | new.keys():
        if new.get(key) == before.get(key):
            continue
        at = f"metadata.annotations[{key}]"
        known = key in before
        if key.startswith(APP_ARMOR_PREFIX):
            verb = "remove or update" if known else "add"
            errors.append(forbidden_field(at, f"may not {verb} AppArmor annotations"))
        if key == MIRROR:
            verb = "remove or update" if known else "add"
            errors.append(forbidden_field(at, f"may not {verb} mirror pod annotation"))
    return errors


def _images(new: list[Obj], old: list[Obj], path: str) -> tuple[list[FieldError], bool]:
    """(faults, whether nothing else can be compared)"""
    if len(new) != len(old):
        return [forbidden_field(path, "pod updates may not add or remove containers")], True
    errors: list[FieldError] = []
    for i, c in enumerate(new):
        image = c.get("image") or ""
        if not image:
            errors.append(required(f"{path}[{i}].image"))
        if image.strip() != image:
            why = "must not have leading or trailing whitespace"
            errors.append(invalid_value(f"{path}[{i}].image", image, why))
    return errors, False


def validate_pod_update(obj: Obj, old: Obj) -> list[FieldError]:
    spec, before = obj["spec"], old["spec"]
    errors = validate_pod(obj) + annotation_updates(obj, old)
    for key in ("containers", "initContainers"):
        faults, stop = _images(spec.get(key) or [], before.get(key) or [], f"spec.{key}")
        errors += faults
        if stop:
            return errors
    deadline, was = spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    at = "spec.activeDeadlineSeconds"
    if deadline is not None:
        if faults := checks.between(at, deadline, 0, checks.MAX_INT32):
            return errors + faults
        if was is not None and was < deadline:
            return [*errors, invalid_value(at, deadline, "must be less than or equal to previous value")]
    elif was is not None:
        errors.append(invalid_value(at, None, "must not update from a positive integer to nil value"))
    errors += _tolerations(spec, before) + _gates(spec, before)
    if same_struct(type_named(POD_SPEC), spec, before):
        return errors
    return errors + _immutable(spec, before)


def _tolerations(spec: Obj, before: Obj) -> list[FieldError]:
    def bare(t: Obj) -> Obj:
        return {k: v for k, v in t.items() if k != "tolerationSeconds"}

    new = spec.get("tolerations") or []
    for t in before.get("tolerations") or ():
        if not any(same(bare(t), bare(n)) for n in new):
            why = "existing toleration can not be modified except its tolerationSeconds"
            return [forbidden_field("spec.tolerations", why)]
    return validate_tolerations(new, "spec.tolerations")


def _gates(spec: Obj, before: Obj) -> list[FieldError]:
    known = {g.get("name") for g in before.get("schedulingGates") or ()}
    return [
        forbidden_field(
            f"spec.schedulingGates[{i}].name",
            f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'",
        )
        for i, gate in enumerate(spec.get("schedulingGates") or ())
        if gate.get("name") not in known
    ]


def put(spec: Obj, key: str, value: Any) -> None:
    """Nothing is put by taking away."""
    if value is None:
        spec.pop(key, None)
    else:
        spec[key] = value


def _immutable(spec: Obj, before: Obj) -> list[FieldError]:
    """With everything that may change put back, nothing else may differ."""
    errors: list[FieldError] = []
    rest = copy.deepcopy(spec)
    for key in ("containers", "initContainers"):
        for c, o in zip(rest.get(key) or (), before.get(key) or (), strict=False):
            put(c, "image", o.get("image"))
    for key in ("activeDeadlineSeconds", "schedulingGates", "tolerations"):
        put(rest, key, before.get(key))
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and rest.get("terminationGracePeriodSeconds") == 1:
        rest["terminationGracePeriodSeconds"] = before["terminationGracePeriodSeconds"]
    if before.get("schedulingGates"):
        errors += _narrowed(rest, before)
    if not same_struct(type_named(POD_SPEC), rest, before):
        diff = difference(POD_SPEC, before, rest)
        errors.append(forbidden_field("spec", f"pod updates may not change fields other than {UPDATABLE}\n{diff}"))
    return errors


def _narrowed(rest: Obj, before: Obj) -> list[FieldError]:
    """While a pod is gated its node selector and node affinity may become narrower; what was allowed is put back."""
    errors: list[FieldError] = []
    selector, known = rest.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if any(selector.get(k) != v for k, v in known.items()):
        why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        errors.append(invalid_value("spec.nodeSelector", selector, why))
    put(rest, "nodeSelector", before.get("nodeSelector"))
    new = (rest.get("affinity") or {}).get("nodeAffinity")
    was = (before.get("affinity") or {}).get("nodeAffinity")
    if not same(new, was):
        errors += _affinity_narrowed(new or {}, was or {})
        affinity = dict(rest.get("affinity") or {})
        put(affinity, "nodeAffinity", was)
        put(rest, "affinity", affinity or before.get("affinity"))
    return errors


def _affinity_narrowed(new: Obj, was: Obj) -> list[FieldError]:
    old_terms = (was.get(REQUIRED) or {}).get("nodeSelectorTerms") or []
    if not old_terms:
        return []
    at = f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
    terms = (new.get(REQUIRED) or {}).get("nodeSelectorTerms") or []
    if len(terms) != len(old_terms):
        why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        return [invalid_value(at, terms or None, why)]
    errors: list[FieldError] = []
    for i, (term, old) in enumerate(zip(terms, old_terms, strict=True)):
        kept = all(
            (term.get(k) or [])[: len(old.get(k) or [])] == (old.get(k) or [])
            for k in ("matchExpressions", "matchFields")
        )
        empty = not old.get("matchExpressions") and not old.get("matchFields")
        if not kept or (empty and not same(term, old)):
            why = "only additions are allowed (no mutations or deletions)"
            errors.append(invalid_value(f"{at}[{i}]", term, why))
    return errors


def keep_all_but_ephemeral_containers(obj: Obj, old: Obj) -> None:
    containers = (obj.get("spec") or {}).get("ephemeralContainers")
    obj["spec"] = copy.deepcopy(old["spec"])
    put(obj["spec"], "ephemeralContainers", containers)
    obj["status"] = copy.deepcopy(old.get("status") or {})
    keep_metadata(obj, old)


def keep_metadata(obj: Obj, old: Obj) -> None:
    """For subresources that write something else."""
    for key in ("labels", "annotations", "finalizers", "ownerReferences"):
        put(obj["metadata"], key, copy.deepcopy(old["metadata"].get(key)))


def validate_ephemeral_containers_update(obj: Obj, old: Obj) -> list[FieldError]:
    """They may be added, never changed or taken away."""
    if MIRROR in (old["metadata"].get("annotations") or {}):
        return [forbidden_field("", "static pods do not support ephemeral containers")]
    errors = validate_pod(obj) + annotation_updates(obj, old)
    at = "spec.ephemeralContainers"
    new = {c.get("name"): c for c in obj["spec"].get("ephemeralContainers") or ()}
    for c in old["spec"].get("ephemeralContainers") or ():
        name = c.get("name")
        if name not in new:
            errors.append(forbidden_field(at, f'existing ephemeral containers "{name}" may not be removed\n'))
        elif not same_struct(type_named(DEBUGGING), c, new[name]):
            diff = difference(DEBUGGING, c, new[name])
            errors.append(forbidden_field(at, f'existing ephemeral containers "{name}" may not be changed\n{diff}'))
    return errors
