"""Random and hostile input: nothing but the documented errors, no hang, and algebra that holds."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berg.machinery import schema
from berg.machinery.codec import cbor, json, yaml
from berg.machinery.patch import apply, comparing, fieldset, strategic
from berg.machinery.patch import json as json_patch
from berg.machinery.patch import merge as merge_patch
from berg.machinery.status import ApiError, Obj

POD = schema.type_of("", "v1", "Pod")
assert POD
NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

KEYS = st.sampled_from(
    ["metadata", "spec", "containers", "name", "labels", "ports", "containerPort", "image", "a", "tolerations", "env"]
    + ["$patch", "$retainKeys", "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers", "finalizers"]
)
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "b", "replace", "delete", "merge", ""])
JSON = st.recursive(SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(KEYS, v, max_size=4), max_leaves=25)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=4)


def pod() -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "1"}, "finalizers": ["a", "b"]},
        "spec": {"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 1}]}, {"name": "b"}]},
    }


@QUICK
@given(OBJECTS)
def test_strategic_merge(patch: Obj) -> None:
    doc = pod()
    assert POD
    try:
        strategic.apply(doc, patch, POD)
    except ApiError:
        pass
    assert doc == pod()


@QUICK
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("op", "path", "from", "value"), JSON)), max_size=3))
def test_json_patch(patch: list[Obj]) -> None:
    try:
        json_patch.apply(pod(), patch)
    except ApiError:
        pass


@QUICK
@given(OBJECTS)
def test_merge_patch_has_no_nulls_in_objects(patch: Obj) -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert None not in value.values()
            for inner in value.values():
                check(inner)

    check(merge_patch.apply(pod(), patch))


@QUICK
@given(OBJECTS)
def test_decode(obj: Obj) -> None:
    assert POD
    try:
        schema.decode(POD, obj)
    except schema.WrongType:
        return
    again = copy.deepcopy(obj)
    assert schema.decode(POD, again) == []
    assert again == obj, "decoding is idempotent"


@QUICK
@given(OBJECTS, OBJECTS)
def test_ownership_never_breaks_a_write(first: Obj, second: Obj) -> None:
    assert POD
    live = None
    for obj in (first, second):
        try:
            schema.decode(POD, obj)
        except schema.WrongType:
            return
        obj["metadata"]["uid"] = "1"
        live = apply.update(live, obj, "m", api_version="v1", now=NOW, type=POD)
        orjson.dumps(live)


@QUICK
@given(OBJECTS, OBJECTS)
def test_apply_twice_is_apply_once(first: Obj, second: Obj) -> None:
    assert POD
    head = {"apiVersion": "v1", "kind": "Pod"}
    live = pod()
    live["metadata"]["uid"] = "1"
    try:
        live = apply.apply(live, {**first, **head}, "one", now=NOW, type=POD, force=True)
        live = apply.apply(live, {**second, **head}, "two", now=NOW, type=POD, force=True)
        again = apply.apply(live, {**second, **head}, "two", now=NOW, type=POD)
    except ApiError:
        return
    assert again == live


ELEMENTS = st.sampled_from(["f:a", "f:b", "f:c"])
PATHS = st.sets(st.lists(ELEMENTS, min_size=1, max_size=3).map(tuple), max_size=8)


@QUICK
@given(PATHS, PATHS)
def test_field_sets_are_sets(a: set[Any], b: set[Any]) -> None:
    x, y = fieldset.of_paths(*a), fieldset.of_paths(*b)
    before = copy.deepcopy((x, y))
    assert set(fieldset.paths(fieldset.union(x, y))) == a | b
    assert set(fieldset.paths(fieldset.intersection(x, y))) == a & b
    assert set(fieldset.paths(fieldset.difference(x, y))) == a - b
    below = {p for p in a if any(p[: len(q)] == q for q in b)}
    assert set(fieldset.paths(fieldset.recursive_difference(x, y))) == a - below
    assert fieldset.difference(x, y) == fieldset.of_paths(*(a - b)), "in normal form"
    assert all(fieldset.has(x, p) == (p in a) for p in a | b)
    assert (x, y) == before


@QUICK
@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 2)),
)
def test_compare_finds_every_change(old: dict[str, int], new: dict[str, int]) -> None:
    type_ = schema.type_of("", "v1", "ConfigMap")
    assert type_
    comparison = comparing.compare(type_, {"data": old}, {"data": new})

    def keys(a: fieldset.FieldSet) -> set[str]:
        return {p[1][2:] for p in fieldset.paths(a) if len(p) == 2}

    assert keys(comparison.added) == new.keys() - old.keys()
    assert keys(comparison.removed) == old.keys() - new.keys()
    assert keys(comparison.modified) == {k for k in old.keys() & new.keys() if old[k] != new[k]}


@QUICK
@given(st.binary(max_size=80))
def test_decoders_of_bytes(data: bytes) -> None:
    for loads, fault in ((json.loads, json.SyntaxFault), (yaml.loads, yaml.SyntaxFault), (cbor.loads, cbor.Malformed)):
        try:
            loads(data)
        except fault:
            pass


@QUICK
@given(JSON)
def test_yaml_and_cbor_round_trips(value: Any) -> None:
    obj = {"v": value}
    assert yaml.loads(yaml.dumps(obj)) == obj
    assert cbor.loads(cbor.dumps(obj)) == obj


def test_deep_patches_are_no_crash() -> None:
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    assert POD
    merge_patch.apply({}, deep)
    with pytest.raises(ApiError, match="exceeded max depth"):
        strategic.apply(pod(), {"metadata": deep}, POD)
    comparing.compare(POD, {}, {"metadata": deep})
