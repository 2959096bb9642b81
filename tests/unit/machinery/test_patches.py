"""JSON patch, JSON merge patch, strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from berg.machinery import schema
from berg.machinery.patch import json, merge, strategic
from berg.machinery.status import ApiError, Obj

DEPLOYMENT = schema.type_of("apps", "v1", "Deployment")
assert DEPLOYMENT

# ---- JSON patch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "after"),
    [
        ({"op": "add", "path": "/a/-", "value": 3}, {"a": [1, 2, 3], "b": None, "c/d": 1}),
        ({"op": "add", "path": "/a/0", "value": 3}, {"a": [3, 1, 2], "b": None, "c/d": 1}),
        ({"op": "add", "path": "/e", "value": {}}, {"a": [1, 2], "b": None, "c/d": 1, "e": {}}),
        ({"op": "remove", "path": "/c~1d"}, {"a": [1, 2], "b": None}),
        ({"op": "remove", "path": "/a/-1"}, {"a": [1], "b": None, "c/d": 1}),
        ({"op": "replace", "path": "/a/1", "value": 9}, {"a": [1, 9], "b": None, "c/d": 1}),
        ({"op": "replace", "path": "/new", "value": 9}, {"a": [1, 2], "b": None, "c/d": 1, "new": 9}),
        ({"op": "move", "from": "/a/0", "path": "/a/1"}, {"a": [2, 1], "b": None, "c/d": 1}),
        ({"op": "copy", "from": "/a", "path": "/e"}, {"a": [1, 2], "b": None, "c/d": 1, "e": [1, 2]}),
        ({"op": "test", "path": "/missing", "value": None}, {"a": [1, 2], "b": None, "c/d": 1}),
        ({"op": "replace", "path": "", "value": {"x": 1}}, {"x": 1}),
    ],
)
def test_json_patch(op: Obj, after: Obj) -> None:
    doc = {"a": [1, 2], "b": None, "c/d": 1}
    before = copy.deepcopy(doc)
    assert json.apply(doc, [op]) == after
    assert doc == before


@pytest.mark.parametrize(
    ("patch", "code", "why"),
    [
        ([{"op": "test", "path": "/b", "value": True}], 422, "testing value /b failed: test failed"),
        (
            [{"op": "remove", "path": "/z"}],
            422,
            "error in remove for path: '/z': Unable to remove nonexistent key: z: missing value",
        ),
        (
            [{"op": "add", "path": "/a/9", "value": 1}],
            422,
            "error in add for path: '/a/9': Unable to access invalid index: 9: invalid index referenced",
        ),
        (
            [{"op": "add", "path": "/x/y", "value": 1}],
            422,
            'add operation does not apply: doc is missing path: "/x/y": missing value',
        ),
        ([{"op": "jump", "path": "/"}], 422, "Unexpected kind: jump"),
        ({}, 400, "json: cannot unmarshal object into Go value of type jsonpatch.Patch"),
        ([{"op": "test", "path": "/b", "value": 1}] * 10_001, 413, "Request entity too large"),
    ],
)
def test_json_patch_faults(patch: Any, code: int, why: str) -> None:
    with pytest.raises(ApiError) as fault:
        json.apply({"a": [1], "b": 1}, patch)
    assert fault.value.code == code
    assert str(fault.value).startswith(why)
    if code == 422:
        assert fault.value.message == "the server rejected our request due to an error in our request"


def test_json_patch_cannot_blow_up() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 40
    with pytest.raises(ApiError, match="the accumulated size increase of copy is"):
        json.apply({"a": ["x" * 100]}, doubling)
    deep: Any = {}
    for _ in range(200):
        deep = {"a": deep}
    nested = [{"op": "add", "path": "/" + "a/" * 200 + "b", "value": deep}]
    with pytest.raises(ApiError, match="exceeded max depth"):
        json.apply(deep, nested)


def test_merge_patch() -> None:
    doc = {"a": {"b": 1, "c": 2}, "d": 1}
    assert merge.apply(doc, {"a": {"b": None, "e": {"f": None}}, "d": [{"x": None}, None]}) == {
        "a": {"c": 2, "e": {}},
        "d": [{}, None],
    }
    assert doc == {"a": {"b": 1, "c": 2}, "d": 1}
    with pytest.raises(ApiError):
        merge.apply(doc, [])


# ---- strategic merge patch ------------------------------------------------------------------------------


def deployment() -> Obj:
    return {
        "metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y", "z"]},
        "spec": {
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "template": {
                "spec": {
                    "containers": [
                        {"name": "a", "image": "1", "ports": [{"containerPort": 80}], "args": ["x"]},
                        {"name": "b", "image": "2"},
                    ],
                    "tolerations": [{"key": "k"}],
                }
            },
        },
    }


def patched(patch: Obj) -> Obj:
    doc = deployment()
    asked = copy.deepcopy(patch)
    assert DEPLOYMENT
    result = strategic.apply(doc, patch, DEPLOYMENT)
    assert doc == deployment(), "the document must not change"
    assert patch == asked, "the patch must not change"
    return result


def pod(spec: Obj) -> Obj:
    return {"spec": {"template": {"spec": spec}}}


def containers(patch: Obj) -> Any:
    return patched(pod(patch))["spec"]["template"]["spec"]["containers"]


def test_lists_merge_by_key() -> None:
    assert containers({"containers": [{"name": "b", "image": "3"}, {"name": "c"}]}) == [
        {"name": "a", "image": "1", "ports": [{"containerPort": 80}], "args": ["x"]},
        {"name": "b", "image": "3"},
        {"name": "c"},
    ]
    assert containers({"containers": [{"name": "a", "args": ["y"], "ports": [{"containerPort": 81}]}]})[0] == {
        "name": "a",
        "image": "1",
        "ports": [{"containerPort": 81}, {"containerPort": 80}],
        "args": ["y"],
    }


def test_atomic_lists_are_replaced() -> None:
    spec = patched(pod({"tolerations": [{"key": "n"}]}))["spec"]["template"]["spec"]
    assert spec["tolerations"] == [{"key": "n"}]


def test_delete_and_replace_directives() -> None:
    assert [c["name"] for c in containers({"containers": [{"name": "a", "$patch": "delete"}]})] == ["b"]
    assert containers({"containers": [{"$patch": "replace"}, {"name": "z"}]}) == [{"name": "z"}]
    assert patched({"metadata": {"$patch": "replace", "name": "n"}})["metadata"] == {"name": "n"}
    assert patched({"metadata": {"labels": {"$patch": "delete"}}})["metadata"]["labels"] == {}
    assert patched({"metadata": {"labels": None}})["metadata"] == {"finalizers": ["x", "y", "z"]}


def test_new_values_lose_directives_and_nulls() -> None:
    spec = patched(pod({"volumes": [{"name": "v", "hostPath": None}, {"name": "w", "$patch": "delete"}]}))
    assert spec["spec"]["template"]["spec"]["volumes"] == [{"name": "v"}]


def test_retain_keys() -> None:
    after = patched({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}})
    assert after["spec"]["strategy"] == {"type": "Recreate"}
    with pytest.raises(ApiError, match="invalid patch format of retainKeys") as fault:
        patched({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {"maxSurge": 2}}}})
    assert fault.value.code == 400


def test_primitive_lists() -> None:
    after = patched({"metadata": {"$deleteFromPrimitiveList/finalizers": ["y"], "finalizers": ["n"]}})
    assert after["metadata"]["finalizers"] == ["n", "x", "z"]


def test_set_element_order() -> None:
    after = containers({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]})
    assert [c["name"] for c in after] == ["b", "a"]
    after = containers(
        {
            "$setElementOrder/containers": [{"name": "n"}, {"name": "b"}],
            "containers": [{"name": "n"}, {"name": "b", "image": "9"}],
        }
    )
    assert [(c["name"], c.get("image")) for c in after] == [("n", None), ("a", "1"), ("b", "9")]
    order = {"$setElementOrder/finalizers": ["z", "x"]}
    assert patched({"metadata": order})["metadata"]["finalizers"] == ["y", "z", "x"]
    with pytest.raises(ApiError, match="doesn't match"):
        containers({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "n"}]})


def test_strategic_faults() -> None:
    for patch, message in (
        (pod({"containers": [{"image": "3"}]}), "map: map[image:3] does not contain declared merge key: name"),
        ({"metadata": {"labels": {"$patch": "jump"}}}, "unknown patch type: jump in map: map[$patch:jump]"),
    ):
        with pytest.raises(ApiError) as fault:
            patched(patch)
        assert fault.value.message == message
