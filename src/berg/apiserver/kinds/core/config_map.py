"""ConfigMaps.

Source: kubernetes pkg/registry/core/configmap, pkg/apis/core/validation ValidateConfigMap.
"""

from __future__ import annotations

import base64
import binascii

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, too_long

MAX_BYTES = 1024 * 1024


def decoded_size(value: str) -> int:
    """Bytes behind base64 text (what is no base64 counts as it stands)."""
    try:
        return len(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        return len(value)


def frozen(obj: Obj, old: Obj, *keys: str) -> list[FieldError]:
    """Faults of changing what `immutable: true` has frozen."""
    if not old.get("immutable"):
        return []
    changed = [] if obj.get("immutable") else ["immutable"]
    changed += [key for key in keys if (obj.get(key) or {}) != (old.get(key) or {})]
    return [forbidden_field(key, "field is immutable when `immutable` is set") for key in changed]


@strategy_for("", "configmaps")
class ConfigMapStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    has_status = False
    generation = False
    columns = [
        cells.NAME,
        Column("Data", lambda o: len(o.get("data") or ()) + len(o.get("binaryData") or ())),
        cells.AGE,
    ]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
        size = 0
        for key, value in data.items():
            errors += [invalid_value(f"data[{key}]", key, text) for text in names.config_map_key(key)]
            if key in binary:
                errors.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
            size += len(value.encode()) if isinstance(value, str) else 0
        for key, value in binary.items():
            errors += [invalid_value(f"binaryData[{key}]", key, text) for text in names.config_map_key(key)]
            size += decoded_size(value or "")
        if size > MAX_BYTES:
            errors.append(too_long("[]", "", MAX_BYTES))
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        errors = frozen(obj, old, "data", "binaryData")
        return errors + self.validate(ctx, obj)
