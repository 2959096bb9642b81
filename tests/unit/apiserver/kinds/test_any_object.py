"""Whatever a client sends is either taken or refused: no strategy stumbles."""

import copy

import pytest

from berg.apiserver.registry.strategy import strategy_of
from berg.machinery import schema
from berg.machinery.resources import builtin

from .any_object import Anything
from .writing import context

KINDS = {f"{r.group_resource} {r.version}": r for r in builtin().all if "list" in r.verbs}
OBJECTS = 12


def objects(r, seed):
    """As they come out of decoding."""
    type_ = schema.type_of(r.group, r.version, r.kind)
    anything = Anything(seed)
    while True:
        obj = {**anything.struct(type_), "apiVersion": r.api_version, "kind": r.kind}
        try:
            schema.decode(type_, obj)
        except schema.WrongType:
            continue
        meta = obj.get("metadata") or {}
        obj["metadata"] = {**meta, "name": "x", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
        if r.namespaced:
            obj["metadata"]["namespace"] = "ns"
        yield obj


@pytest.mark.parametrize("name", KINDS)
def test_any_object(name):
    r = KINDS[name]
    s, ctx = strategy_of(r), context(r)
    found = objects(r, sum(map(ord, name)))
    for _ in range(OBJECTS):
        old, new = next(found), next(found)
        for obj in (old, new):
            s.default(obj)
        s.prepare_for_create(ctx, old)
        said = [str(e) for e in s.validate(ctx, old)]
        said += s.warnings(ctx, old, None)
        s.canonicalize(old)
        for obj in (old, new):
            for column in s.columns:
                column.value(obj)
            s.selectable_fields(obj)
            s.row_conditions(obj)
        status = new.get("status") or {}
        s.prepare_for_update(ctx, new, old)
        said += [str(e) for e in s.validate_update(ctx, new, old)]
        said += s.warnings(ctx, new, old)
        if s.has_status:
            written = copy.deepcopy(old) | {"status": copy.deepcopy(status)}
            s.prepare_status_update(ctx, written, old)
            said += [str(e) for e in s.validate_status_update(ctx, written, old)]
        assert all(said)
