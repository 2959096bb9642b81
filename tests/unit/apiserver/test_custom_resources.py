"""CustomResourceDefinitions from their creation to their end."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from berg.apiserver.crd import list_types
from berg.apiserver.crd.columns import BadPath, compile_path
from berg.apiserver.crd.ratcheting import made_now
from berg.apiserver.crd.rules import compile_rules
from berg.apiserver.crd.values import compile_schema
from tests.unit.apiserver.served_api import Served

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TABS = "/apis/stable.example.com/v1/namespaces/default/crontabs"
TAB = {"apiVersion": "stable.example.com/v1", "kind": "CronTab"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["cronSpec"],
            "x-kubernetes-validations": [{"rule": "self.cronSpec == oldSelf.cronSpec", "message": "may not change"}],
            "properties": {
                "cronSpec": {"type": "string", "pattern": "^[0-9*/ ]+$"},
                "image": {"type": "string", "default": "img"},
                "replicas": {"type": "integer", "minimum": 1, "maximum": 10},
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    },
}
CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "crontabs.stable.example.com"},
    "spec": {
        "group": "stable.example.com",
        "scope": "Namespaced",
        "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": SCHEMA},
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "additionalPrinterColumns": [{"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"}],
                "selectableFields": [{"jsonPath": ".spec.image"}],
            },
            {
                "name": "v1beta1",
                "served": True,
                "storage": False,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            },
        ],
    },
}


async def define(served: Served, crd: dict[str, Any] = CRD) -> None:
    await served.create(CRDS, crd)
    await served.clock.advance(0, settle=50)


async def test_served_as_soon_as_established(served: Served) -> None:
    await define(served)
    state = (await served.get(f"{CRDS}/crontabs.stable.example.com"))["status"]
    assert {c["type"]: c["status"] for c in state["conditions"]} == {"NamesAccepted": "True", "Established": "True"}
    assert state["acceptedNames"]["listKind"] == "CronTabList"
    made = await served.create(
        TABS, {**TAB, "metadata": {"name": "a"}, "spec": {"cronSpec": "1", "x": 1}, "status": {"replicas": 3}}
    )
    assert made["spec"] == {"cronSpec": "1", "image": "img"} and "status" not in made
    groups = await served.get("/apis")
    assert "stable.example.com" in [g["name"] for g in groups["groups"]]
    document = await served.get("/openapi/v3/apis/stable.example.com/v1")
    assert "com.example.stable.v1.CronTab" in document["components"]["schemas"]


async def test_refusals(served: Served) -> None:
    await define(served)
    code, refused = await served.ask("POST", TABS, {**TAB, "metadata": {"name": "a"}, "spec": {"replicas": "x"}})
    assert code == 422
    assert [(c["field"], c["message"]) for c in refused["details"]["causes"]] == [
        ("spec.replicas", 'Invalid value: "string": spec.replicas in body must be of type integer: "string"'),
        ("spec.cronSpec", "Required value"),
        (".spec.replicas", "Invalid value: 0: .spec.replicas accessor error: x is of the type string, expected int64"),
        (
            "<nil>",
            "Invalid value: null: some validation rules were not checked because the object was invalid; correct the "
            "existing errors to complete validation",
        ),
    ]
    await served.create(TABS, {**TAB, "metadata": {"name": "a"}, "spec": {"cronSpec": "1"}})
    code, refused = await served.patch(f"{TABS}/a", {"spec": {"cronSpec": "2"}})
    assert code == 422 and refused["details"]["causes"][0]["message"] == "Invalid value: may not change"


async def test_an_update_must_say_what_it_is_of(served: Served) -> None:
    await define(served)
    made = await served.create(TABS, {**TAB, "metadata": {"name": "a"}, "spec": {"cronSpec": "1"}})
    del made["metadata"]["resourceVersion"]
    code, refused = await served.ask("PUT", f"{TABS}/a", made)
    assert (code, refused["message"].partition(": ")[2]) == (
        422,
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
    )


async def test_what_does_not_say_what_it_is(served: Served) -> None:
    await define(served)
    named: dict[str, Any] = {"metadata": {"name": "a"}, "spec": {"cronSpec": "1"}}
    unknown = "the object provided is unrecognized (must be of type CronTab): Object 'Kind' is missing in "
    mismatch = "the API version in the data () does not match the expected API version (stable.example.com/v1)"
    other = 'Other.stable.example.com "a" is invalid: kind: Invalid value: "Other": must be CronTab'
    answers = [
        await served.ask("POST", TABS, {**TAB, **named, "kind": None}),
        await served.ask("POST", TABS, {"kind": "CronTab", **named}),
        await served.ask("POST", TABS, {**TAB, **named, "kind": "Other"}),
    ]
    await served.create(TABS, {**TAB, **named})
    answers.append(await served.patch(f"{TABS}/a", {"kind": "Other"}))
    answers.append(await served.patch(f"{TABS}/a", {"kind": None}))
    answers.append(await served.patch(f"{TABS}/a", {"apiVersion": None}))
    found = [(code, told["message"]) for code, told in answers]
    assert found[0][0] == 400 and found[0][1].startswith(unknown)
    assert found[1:4] == [(400, mismatch), (422, other), (422, other)]
    assert found[4][1].startswith(
        ' "" is invalid: patch: Invalid value: "{\\"apiVersion\\":\\"stable.example.com/v1\\",\\"meta'
    )
    assert found[4][0] == 422 and "Object 'Kind' is missing in '{\"apiVersion\":" in found[4][1]
    assert found[5][0] == 500 and "object has no apiVersion field" in found[5][1]


async def test_status_scale_generation(served: Served) -> None:
    await define(served)
    await served.create(TABS, {**TAB, "metadata": {"name": "a"}, "spec": {"cronSpec": "1", "replicas": 1}})
    _, scale = await served.patch(f"{TABS}/a/scale", {"spec": {"replicas": 4}})
    assert scale["kind"] == "Scale" and scale["spec"] == {"replicas": 4}
    _, a = await served.patch(f"{TABS}/a/status", {"spec": {"replicas": 9}, "status": {"replicas": 2}})
    assert (a["spec"]["replicas"], a["status"]["replicas"], a["metadata"]["generation"]) == (4, 2, 2)


async def test_versions(served: Served) -> None:
    await define(served)
    await served.create(TABS, {**TAB, "metadata": {"name": "a"}, "spec": {"cronSpec": "1"}})
    old = TABS.replace("v1", "v1beta1")
    assert (await served.get(f"{old}/a"))["apiVersion"] == "stable.example.com/v1beta1"
    assert (await served.get(old))["items"][0]["apiVersion"] == "stable.example.com/v1beta1"
    code, _ = await served.patch(f"{old}/a", {"spec": {"replicas": 3}})
    assert code == 200
    assert (await served.get(f"{TABS}/a"))["spec"]["replicas"] == 3


async def test_selectable_fields_and_columns(served: Served) -> None:
    await define(served)
    for name, image in (("a", "x"), ("b", "y")):
        await served.create(TABS, {**TAB, "metadata": {"name": name}, "spec": {"cronSpec": "1", "image": image}})
    listed = await served.get(f"{TABS}?fieldSelector=spec.image%3Dy")
    assert [i["metadata"]["name"] for i in listed["items"]] == ["b"]
    shown = await served.get(TABS, accept="application/json;as=Table;g=meta.k8s.io;v=v1")
    assert shown["rows"][0]["cells"] == ["a", "1"]


async def test_selectable_fields_are_those_of_the_version_that_was_asked(served: Served) -> None:
    crd = copy.deepcopy(CRD)
    crd["spec"]["versions"][1]["selectableFields"] = [{"jsonPath": ".spec.cronSpec"}]
    crd["spec"]["versions"][1]["schema"] = copy.deepcopy(crd["spec"]["versions"][0]["schema"])
    await define(served, crd)
    old = TABS.replace("v1", "v1beta1")
    first = await served.create(TABS, {**TAB, "metadata": {"name": "a"}, "spec": {"cronSpec": "1", "image": "x"}})
    await served.create(
        old,
        {
            **TAB,
            "apiVersion": "stable.example.com/v1beta1",
            "metadata": {"name": "b"},
            "spec": {"cronSpec": "2", "image": "x"},
        },
    )
    listed = await served.get(f"{old}?fieldSelector=spec.cronSpec%3D2")
    assert [i["metadata"]["name"] for i in listed["items"]] == ["b"]
    assert (await served.ask("GET", f"{old}?fieldSelector=spec.image%3Dx"))[0] == 400
    await served.patch(f"{TABS}/a", {"spec": {"image": "y"}})
    revision = int(first["metadata"]["resourceVersion"]) - 1
    events = await served.watch(f"{TABS}?watch=1&fieldSelector=spec.image%3Dx&resourceVersion={revision}", 3)
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]


async def test_the_end(served: Served) -> None:
    await define(served)
    await served.create(TABS, {**TAB, "metadata": {"name": "a"}, "spec": {"cronSpec": "1"}})
    await served.ask("DELETE", f"{CRDS}/crontabs.stable.example.com")
    await served.clock.advance(2, settle=50)
    assert (await served.ask("GET", f"{CRDS}/crontabs.stable.example.com"))[0] == 404
    assert (await served.raw("GET", TABS)).status == 404
    assert (await served.raw("GET", "/apis/stable.example.com/v1")).status == 404


async def test_names_in_use(served: Served) -> None:
    await define(served)
    other = copy.deepcopy(CRD)
    other["metadata"]["name"] = "jobs.stable.example.com"
    other["spec"]["names"] = {"plural": "jobs", "kind": "CronTab"}
    await define(served, other)
    state = (await served.get(f"{CRDS}/jobs.stable.example.com"))["status"]
    found = {c["type"]: (c["status"], c["reason"]) for c in state["conditions"]}
    assert found["NamesAccepted"] == ("False", "ListKindConflict")
    assert found["Established"] == ("False", "NotAccepted")
    assert (await served.raw("GET", "/apis/stable.example.com/v1/jobs")).status == 404


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s: s.update(group="nodots"), "should be a domain with at least one dot"),
        (lambda s: s["versions"][1].update(storage=True), "must have exactly one version marked as storage version"),
        (
            lambda s: s["versions"][0]["schema"]["openAPIV3Schema"]["properties"].update(x={}),
            "must not be empty for specified object fields",
        ),
        (lambda s: s.update(scope="Galaxy"), "Unsupported value"),
    ],
)
async def test_definitions_that_are_refused(served: Served, change: Any, fault: str) -> None:
    crd = copy.deepcopy(CRD)
    change(crd["spec"])
    code, refused = await served.ask("POST", CRDS, crd)
    assert code == 422 and fault in refused["message"]


def faults(schema: dict[str, Any], value: Any) -> list[str]:
    errors: list[Any] = []
    compile_schema(schema)("a", value, errors)
    errors += list_types.faults(value, schema, "a")
    return [str(e) for e in errors]


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "integer", "minimum": 1}, 0, ["a: Invalid value: 0: a in body should be greater than or equal to 1"]),
        ({"type": "string", "enum": ["x", "y"]}, "z", ['a: Unsupported value: "z": supported values: "x", "y"']),
        ({"type": "string", "maxLength": 1}, "zz", ["a: Too long: may not be more than 1 byte"]),
        ({"type": "array", "maxItems": 1}, [1, 2], ["a: Too many: 2: must have at most 1 items"]),
        ({"type": "string", "nullable": True}, None, []),
        ({"type": "string"}, None, ['a: Invalid value: "null": a in body must be of type string: "null"']),
        ({"x-kubernetes-int-or-string": True}, "5%", []),
        ({"type": "array", "x-kubernetes-list-type": "set"}, [1, 1], ["a[1]: Duplicate value: 1"]),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"x": 1}, []),
        (
            {"type": "object", "not": {"required": ["x"]}},
            {"x": 1},
            ['<nil>: Invalid value: "": "a" must not validate the schema (not)'],
        ),
    ],
)
def test_values(schema: dict[str, Any], value: Any, expected: list[str]) -> None:
    found = faults(schema, value)
    assert [f.replace('Too long: "zz"', "Too long") for f in found] == expected


def test_rules_are_not_asked_of_what_did_not_change() -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5"}]}},
    }
    rules = compile_rules(schema)
    assert [str(e) for e in rules.check({"n": 1}, None)] == ["n: Invalid value: 1: failed rule: self > 5"]
    assert rules.check({"n": 1, "m": 2}, {"n": 1}) == []


def test_rules_about_changes_are_asked_even_then() -> None:
    rule = {"rule": "self != oldSelf"}
    rules = compile_rules(
        {"type": "object", "properties": {"n": {"type": "integer", "x-kubernetes-validations": [rule]}}}
    )
    assert len(rules.check({"n": 1, "m": 2}, {"n": 1})) == 1


@pytest.mark.parametrize(
    ("extra", "old", "new", "left"),
    [
        ({}, ["a"], ["a"], []),
        ({}, ["a"], ["a", "ok"], ["l[0]"]),
        ({"x-kubernetes-list-type": "set"}, ["a"], ["a", "ok"], ["l[0]"]),
        (
            {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
            [{"k": "x", "v": 1}],
            [{"k": "y"}, {"k": "x", "v": 1}],
            ["l[0].k"],
        ),
    ],
)
def test_faults_that_were_there_before(extra: Any, old: Any, new: Any, left: list[str]) -> None:
    element: dict[str, Any] = {"type": "string", "enum": ["ok"]}
    if "x-kubernetes-list-map-keys" in extra:
        element = {"type": "object", "properties": {"k": {"type": "string", "enum": ["ok"]}}}
    schema = {"type": "object", "properties": {"l": {"type": "array", "items": element, **extra}}}
    errors: list[Any] = []
    compile_schema(schema)("", {"l": new}, errors)
    assert [e.field for e in made_now(errors, {"l": new, "m": 1}, {"l": old}, schema)] == left


def test_what_is_lacking_is_the_fault_of_what_lacks_it() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {}, "b": {"type": "integer"}}}
    errors: list[Any] = []
    compile_schema(schema)("", {"b": 2}, errors)
    assert made_now(errors, {"b": 2}, {"b": 1}, schema) == errors
    assert made_now(errors, {"b": 1}, {"b": 1}, schema) == []


def test_paths() -> None:
    obj = {"spec": {"list": [{"t": "a", "v": 1}, {"t": "b", "v": 2}], "x.y": 3}}
    assert compile_path(".spec.list[1].v")(obj) == [2]
    assert compile_path(".spec.list[*].v")(obj) == [1, 2]
    assert compile_path('.spec.list[?(@.t=="b")].v')(obj) == [2]
    assert compile_path(".spec.x\\.y")(obj) == [3]
    with pytest.raises(BadPath):
        compile_path("spec list")


async def test_what_was_stored_before_is_defaulted_when_it_is_read(served: Served) -> None:
    await define(served)
    await served.create(TABS, {**TAB, "metadata": {"name": "a"}, "spec": {"cronSpec": "1"}})
    crd = await served.get(f"{CRDS}/crontabs.stable.example.com")
    fields = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    fields["added"] = {"type": "string", "default": "later"}
    assert (await served.ask("PUT", f"{CRDS}/crontabs.stable.example.com", crd))[0] == 200
    await served.clock.advance(0, settle=50)
    assert (await served.get(f"{TABS}/a"))["spec"]["added"] == "later"
    assert (await served.get(TABS))["items"][0]["spec"]["added"] == "later"
    (event,) = await served.watch(f"{TABS}?watch=1", 1)
    assert event["object"]["spec"]["added"] == "later"
    _, patched = await served.patch(f"{TABS}/a", {"metadata": {"labels": {"x": "y"}}})
    assert patched["spec"]["added"] == "later"


def test_a_stored_rule_that_no_longer_compiles_refuses_instead_of_failing() -> None:
    rule = {"rule": "nothing.like(this)"}
    rules = compile_rules({"type": "object", "x-kubernetes-validations": [rule]})
    (fault,) = rules.check({}, None)
    assert fault.detail.startswith("rule compile error: compilation failed: ERROR: <input>:1:1: undeclared reference")


async def test_groups_of_kubernetes_say_how_they_were_approved(served: Served) -> None:
    crd = copy.deepcopy(CRD)
    crd["spec"]["group"] = "x.k8s.io"
    crd["metadata"] = {
        "name": f"{crd['spec']['names']['plural']}.x.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a test"},
    }
    await define(served, crd)
    state = (await served.get(f"{CRDS}/{crd['metadata']['name']}"))["status"]
    (found,) = [c for c in state["conditions"] if c["type"] == "KubernetesAPIApprovalPolicyConformant"]
    assert (found["status"], found["reason"]) == ("False", "UnapprovedAnnotation")
    assert found["message"] == 'not approved: "unapproved, a test"'
