"""Secrets: stringData becomes data; each type demands its keys.

Source: kubernetes pkg/registry/core/secret, pkg/apis/core/validation ValidateSecret.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import orjson

from berg.apiserver.kinds import cells
from berg.apiserver.kinds.core.config_map import MAX_BYTES, decoded_size, frozen
from berg.apiserver.kinds.immutable import immutable
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, invalid_value, required, too_long

SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"
SERVICE_ACCOUNT_NAME = "kubernetes.io/service-account.name"
_DOCKER = {"kubernetes.io/dockercfg": ".dockercfg", "kubernetes.io/dockerconfigjson": ".dockerconfigjson"}


def _decoded(data: Obj, key: str) -> bytes:
    try:
        return base64.b64decode(data.get(key) or "")
    except (binascii.Error, ValueError):
        return b""


@strategy_for("", "secrets")
class SecretStrategy(Strategy):
    metadata_checks = (1, 1, 1)
    has_status = False
    generation = False
    field_labels = ("type",)
    columns = [
        cells.NAME,
        Column("Type", cells.at("type")),
        Column("Data", lambda o: len(o.get("data") or ())),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        if (plain := obj.pop("stringData", None)) is not None and plain:
            data = obj.get("data")
            if data is None:
                data = obj["data"] = {}
            for key, value in plain.items():
                data[key] = base64.b64encode((value or "").encode()).decode()
        if not obj.get("type"):
            obj["type"] = "Opaque"

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        data, kind = obj.get("data") or {}, obj.get("type")
        for key in data:
            errors += [invalid_value(f"data[{key}]", key, text) for text in names.config_map_key(key)]
        if sum(decoded_size(v or "") for v in data.values()) > MAX_BYTES:
            errors.append(too_long("data", "", MAX_BYTES))
        if kind == SERVICE_ACCOUNT_TOKEN:
            if not (obj["metadata"].get("annotations") or {}).get(SERVICE_ACCOUNT_NAME):
                errors.append(required(f"metadata.annotations[{SERVICE_ACCOUNT_NAME}]"))
        elif kind in _DOCKER:
            key = _DOCKER[kind]
            if key not in data:
                errors.append(required(f"data[{key}]"))
            else:
                errors += _valid_docker(_decoded(data, key), f"data[{key}]")
        elif kind == "kubernetes.io/basic-auth":
            if "username" not in data and "password" not in data:
                errors += [required("data[username]"), required("data[password]")]
        elif kind == "kubernetes.io/ssh-auth":
            if not data.get("ssh-privatekey"):
                errors.append(required("data[ssh-privatekey]"))
        elif kind == "kubernetes.io/tls":
            errors += [required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data]
        return errors

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        errors = immutable(obj, old, "type") + frozen(obj, old, "data")
        return errors + self.validate(ctx, obj)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        if obj.get("type") != "kubernetes.io/tls":
            return ()
        from berg.apiserver.kinds.core.tls_pair import mismatch

        data = obj.get("data") or {}
        fault = mismatch(_decoded(data, "tls.crt"), _decoded(data, "tls.key"))
        return (fault,) if fault else ()

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"type": obj.get("type") or ""}


def _valid_docker(content: bytes, path: str) -> list[FieldError]:
    try:
        if isinstance(orjson.loads(content), dict):
            return []
        fault = "json: cannot unmarshal into Go value of type map[string]interface {}"
    except orjson.JSONDecodeError as e:
        fault = "unexpected end of JSON input" if not content else str(e)
    return [invalid_value(path, "<secret contents redacted>", fault)]
