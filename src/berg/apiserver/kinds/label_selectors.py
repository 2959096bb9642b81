"""Labels and label selectors in fields of objects.

Source: apimachinery pkg/apis/meta/v1/validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from berg.machinery import names
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)


def validate_label_name(name: str, path: str) -> list[FieldError]:
    return [invalid_value(path, name, text) for text in names.qualified_name(name)]


def validate_labels(labels: Mapping[str, Any] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, value in (labels or {}).items():
        errors += validate_label_name(key, path)
        errors += [invalid_value(path, value, text) for text in names.label_value(value or "")]
    return errors


ANNOTATIONS_LIMIT = 256 * 1024


def validate_annotations(annotations: Mapping[str, Any] | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    size = 0
    for key, value in (annotations or {}).items():
        errors += [invalid_value(path, key, text) for text in names.qualified_name(key.lower())]
        size += len(key) + len(value or "")
    if size > ANNOTATIONS_LIMIT:
        errors.append(too_long(path, "", ANNOTATIONS_LIMIT))
    return errors


def validate_template_metadata(meta: Obj, path: str) -> list[FieldError]:
    """Of an object that is yet to be made: nothing but labels and annotations."""
    errors = validate_annotations(meta.get("annotations"), f"{path}.annotations")
    errors += validate_labels(meta.get("labels"), f"{path}.labels")
    others = [key for key in _META_ORDER if meta.get(key) or (key == _GRACE and meta.get(key) is not None)]
    return errors + [forbidden_field(f"{path}.{key}", "cannot be set") for key in others]


_GRACE = "deletionGracePeriodSeconds"
_META_ORDER = (
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    _GRACE,
    "ownerReferences",
    "finalizers",
    "managedFields",
)


def validate_requirement(e: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = e.get("operator") or "", e.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            errors.append(
                forbidden_field(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            )
    else:
        errors.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    errors += validate_label_name(e.get("key") or "", f"{path}.key")
    for i, value in enumerate(values):
        errors += [invalid_value(f"{path}.values[{i}]", value, text) for text in names.label_value(value)]
    return errors


def validate_selector(selector: Obj | None, path: str) -> list[FieldError]:
    if not selector:
        return []
    errors = validate_labels(selector.get("matchLabels"), f"{path}.matchLabels")
    for i, e in enumerate(selector.get("matchExpressions") or ()):
        errors += validate_requirement(e, f"{path}.matchExpressions[{i}]")
    return errors


def is_empty(selector: Obj | None) -> bool:
    return not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))


_REASON = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_reason = re.compile(_REASON)
_REASON_MESSAGE = (
    "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric "
    "characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or "
    f"'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '{_REASON}')"
)


def validate_conditions(conditions: list[Obj] | None, path: str) -> list[FieldError]:
    """`metav1.Condition`s of a status."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for i, c in enumerate(conditions or ()):
        at = f"{path}[{i}]"
        kind = c.get("type") or ""
        if kind in seen:
            errors.append(duplicate(f"{at}.type", kind))
        seen.add(kind)
        errors += validate_label_name(kind, f"{at}.type")
        if c.get("status") not in ("True", "False", "Unknown"):
            errors.append(not_supported(f"{at}.status", c.get("status") or "", ["False", "True", "Unknown"]))
        if (c.get("observedGeneration") or 0) < 0:
            errors.append(
                invalid_value(
                    f"{at}.observedGeneration", c["observedGeneration"], "must be greater than or equal to zero"
                )
            )
        if not c.get("lastTransitionTime"):
            errors.append(required(f"{at}.lastTransitionTime"))
        reason = c.get("reason") or ""
        if not reason:
            errors.append(required(f"{at}.reason"))
        elif not _reason.fullmatch(reason):
            errors.append(invalid_value(f"{at}.reason", reason, _REASON_MESSAGE))
        if len(c.get("message") or "") > 32 * 1024:
            errors.append(too_long(f"{at}.message", "", 32 * 1024))
    return errors
