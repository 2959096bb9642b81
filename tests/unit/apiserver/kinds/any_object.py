"""Objects of every kind that a client could send: of the right types, and of no sense."""

from __future__ import annotations

import random
from typing import Any

from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef

_TEXTS = (
    *("", "a", "A_b", "a/b", "x.y.z", "-1", "10%", "1Gi", "*", "None", "Always", "/a", "../x", "é", "a" * 300, "\x00"),
    *("10.0.0.1", "10.0.0.0/8", "::1", "TCP", "Exists", "In", "RollingUpdate", "Indexed", "* * * * *", "Equal"),
    *("kubernetes.io/tls", "ClientIP", "NodePort", "ExternalName", "Localhost", "2026-01-01T00:00:00Z", "{", "$(A)"),
)
_VALUES: dict[str, tuple[Any, ...]] = {
    "string": _TEXTS,
    "integer": (0, 1, -1, 5, 80, 65536, 2**31 - 1, -(2**31)),
    "number": (0.5, 1, -2.0),
    "boolean": (True, False),
    "quantity": ("0", "1", "-1", "1Gi", "500m", "1e3", 5, "1n", "100Ei"),
    "intorstring": (0, 1, -1, "10%", "http", "-5%", "200%", "", "70000"),
    "time": ("2026-01-01T00:00:00Z",),
    "microtime": ("2026-01-01T00:00:00.000000Z",),
    "duration": ("1s",),
    "bytes": ("", "YQ==", "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"),
    "any": ({}, [], 1, "a", {"a": 1}),
    "fieldsv1": ({},),
}


class Anything:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def struct(self, type_: TypeDef, depth: int = 0) -> Obj:
        often = self.random.choice((0.4, 0.9)) if depth < 4 else 0.5 if depth < 7 else 0.2
        return {
            name: self.value(field, depth)
            for name, field in type_.fields.items()
            if self.random.random() < (0.9 if field.required else often)
        }

    def value(self, field: Field, depth: int) -> Any:
        if self.random.random() < 0.08:
            return None
        values = _VALUES.get(field.type)
        if values is not None:
            return self.random.choice(values)
        if field.type == "object":
            return self.struct(field.struct, depth + 1) if field.struct else {"a": 1}
        assert field.item is not None
        count = self.random.choice((0, 1, 1, 2, 3)) if depth < 9 else 0
        if field.type == "array":
            return [self.value(field.item, depth + 1) for _ in range(count)]
        return {self.random.choice(_TEXTS[1:]): self.value(field.item, depth + 1) for _ in range(count)}
