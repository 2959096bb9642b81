"""The owner of a new object owns what the comparison with an empty one finds: judged by that comparison."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from berg.machinery import schema
from berg.machinery.patch import apply, created, fieldset
from berg.machinery.resources import builtin
from berg.machinery.typedef import Field, TypeDef

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = sorted({(r.group, r.version, r.kind) for r in builtin().all})


def value_of(field: Field, rng: random.Random, depth: int) -> Any:
    if field.type == "object":
        return {} if field.struct is None or depth > 6 else struct_of(field.struct, rng, depth + 1)
    if field.type == "array":
        item = field.item
        assert item is not None
        values = [value_of(item, rng, depth + 1) for _ in range(rng.randrange(3))]
        for key in field.list_keys:
            for value in values:
                value[key] = rng.choice(("a", "b", "c"))
        return values
    if field.type == "map":
        assert field.item is not None
        return {rng.choice("abcd"): value_of(field.item, rng, depth + 1) for _ in range(rng.randrange(3))}
    if field.type in ("integer", "number"):
        return rng.randrange(3)
    if field.type == "boolean":
        return rng.random() < 0.5
    return rng.choice(("", "x", "y"))


def struct_of(type_: TypeDef, rng: random.Random, depth: int = 0) -> dict[str, Any]:
    names = list(type_.fields)
    rng.shuffle(names)
    return {n: value_of(type_.fields[n], rng, depth) for n in names if rng.random() < 0.6}


@pytest.mark.parametrize("seed", range(4))
def test_a_creation_owns_what_the_comparison_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    for group, version, kind in KINDS:
        type_ = schema.type_of(group, version, kind)
        assert type_ is not None
        api_version = f"{group}/{version}" if group else version
        obj = struct_of(type_, rng)
        obj.setdefault("metadata", {}).pop("managedFields", None)
        obj.update(apiVersion=api_version, kind=kind)
        args: dict[str, Any] = {"api_version": api_version, "now": NOW, "type": type_, "reset": [("status",)]}
        fast = apply.update(None, obj, "me", **args)
        with monkeypatch.context() as patched:
            patched.setattr(created, "fields_of", _not_plain)
            slow = apply.update(None, obj, "me", **args)
        ours, theirs = (o["metadata"].get("managedFields") for o in (fast, slow))
        assert ours == theirs, kind
        assert str(ours) == str(theirs), f"{kind}: the order"


def _not_plain(*_: Any) -> fieldset.FieldSet:
    raise created.NotPlain
