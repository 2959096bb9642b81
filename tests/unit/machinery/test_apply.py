"""Server-side apply and managed fields. Expected values are what kube-apiserver shows for the same requests."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from berg.machinery import schema
from berg.machinery.patch import apply, fieldset, managed
from berg.machinery.status import ApiError, Obj

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = datetime(2026, 1, 2, 3, 9, 9, tzinfo=UTC)
DEPLOYMENT = schema.type_of("apps", "v1", "Deployment")
CONFIG_MAP = schema.type_of("", "v1", "ConfigMap")
SERVICE = schema.type_of("", "v1", "Service")
assert DEPLOYMENT and CONFIG_MAP and SERVICE


def deployment() -> Obj:
    """As `kubectl create deployment nginx --image=nginx` is stored."""
    obj: Obj = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "nginx", "namespace": "default", "uid": "1", "labels": {"app": "nginx"}},
        "spec": {
            "progressDeadlineSeconds": 600,
            "replicas": 1,
            "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "nginx"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"labels": {"app": "nginx"}},
                "spec": {
                    "containers": [
                        {
                            "name": "nginx",
                            "image": "nginx",
                            "imagePullPolicy": "Always",
                            "terminationMessagePath": "/dev/termination-log",
                            "terminationMessagePolicy": "File",
                        }
                    ],
                    "dnsPolicy": "ClusterFirst",
                    "restartPolicy": "Always",
                    "schedulerName": "default-scheduler",
                    "securityContext": {},
                    "terminationGracePeriodSeconds": 30,
                },
            },
        },
    }
    assert DEPLOYMENT
    assert schema.decode(DEPLOYMENT, obj) == []
    return obj


def entries(obj: Obj) -> dict[tuple[str, str], Any]:
    return {(e["manager"], e["operation"]): e["fieldsV1"] for e in obj["metadata"].get("managedFields", [])}


def update(live: Obj | None, new: Obj, manager: str, **more: Any) -> Obj:
    more.setdefault("now", NOW)
    more.setdefault("type", DEPLOYMENT)
    return apply.update(live, new, manager, api_version=new["apiVersion"], **more)


def test_create_owns_what_upstream_says() -> None:
    stored = update(None, deployment(), "kubectl-create")
    assert stored["metadata"]["managedFields"] == [
        {
            "manager": "kubectl-create",
            "operation": "Update",
            "apiVersion": "apps/v1",
            "time": "2026-01-02T03:04:05Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:progressDeadlineSeconds": {},
                    "f:replicas": {},
                    "f:revisionHistoryLimit": {},
                    "f:selector": {},
                    "f:strategy": {
                        "f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}},
                        "f:type": {},
                    },
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {
                            "f:containers": {
                                'k:{"name":"nginx"}': {
                                    ".": {},
                                    "f:image": {},
                                    "f:imagePullPolicy": {},
                                    "f:name": {},
                                    "f:resources": {},
                                    "f:terminationMessagePath": {},
                                    "f:terminationMessagePolicy": {},
                                }
                            },
                            "f:dnsPolicy": {},
                            "f:restartPolicy": {},
                            "f:schedulerName": {},
                            "f:securityContext": {},
                            "f:terminationGracePeriodSeconds": {},
                        },
                    },
                },
            },
        }
    ]


def test_update_takes_only_what_changed() -> None:
    live = update(None, deployment(), "creator")
    new = copy.deepcopy(live)
    new["spec"]["replicas"] = 3
    stored = update(live, new, "scaler", now=LATER)
    assert entries(stored)["scaler", "Update"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in entries(stored)["creator", "Update"]["f:spec"]
    assert [e["time"] for e in stored["metadata"]["managedFields"]] == ["2026-01-02T03:04:05Z", "2026-01-02T03:09:09Z"]
    assert "f:replicas" in entries(live)["creator", "Update"]["f:spec"], "the stored object must not change"


def test_unchanged_update_keeps_the_entries() -> None:
    live = update(None, deployment(), "creator")
    same = copy.deepcopy(live)
    assert update(live, same, "other", now=LATER)["metadata"]["managedFields"] == live["metadata"]["managedFields"]


def test_clients_that_drop_managed_fields_do_not_lose_them() -> None:
    live = update(None, deployment(), "creator")
    new = copy.deepcopy(live)
    del new["metadata"]["managedFields"]
    assert update(live, new, "old-client")["metadata"]["managedFields"] == live["metadata"]["managedFields"]


@pytest.mark.parametrize("reset", [[], [{}]])
def test_reset(reset: list[Obj]) -> None:
    live = update(None, deployment(), "creator")
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"] = reset
    assert DEPLOYMENT
    schema.decode(DEPLOYMENT, new)
    assert "managedFields" not in update(live, new, "someone")["metadata"]


def test_subresource_has_an_entry_of_its_own() -> None:
    live = update(None, deployment(), "controller")
    new = copy.deepcopy(live)
    new["status"] = {"replicas": 1}
    new["metadata"]["managedFields"] = []  # not trusted on a subresource
    stored = update(live, new, "controller", subresource="status", reset=[("spec",)])
    assert stored["metadata"]["managedFields"][1]["subresource"] == "status"
    assert stored["metadata"]["managedFields"][1]["fieldsV1"] == {"f:status": {"f:replicas": {}}}


def test_reset_fields_are_not_owned() -> None:
    new = deployment()
    new["status"] = {"replicas": 1}
    stored = update(None, new, "creator", reset=[("status",)])
    assert "f:status" not in entries(stored)["creator", "Update"]


def test_old_updaters_are_merged() -> None:
    live = update(None, deployment(), "creator")
    for i in range(15):
        new = copy.deepcopy(live)
        new["metadata"].setdefault("annotations", {})[f"a{i}"] = "x"
        live = update(live, new, f"m{i:02}")
    names = [e["manager"] for e in live["metadata"]["managedFields"]]
    assert len(names) == managed.MAX_UPDATE_MANAGERS
    assert "ancient-changes" in names


# ---- apply ----------------------------------------------------------------------------------------------


def config_map(data: dict[str, Any] | None, **metadata: Any) -> Obj:
    obj: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d", **metadata}}
    return {**obj, "data": data} if data is not None else obj


def applied(live: Obj | None, config: Obj, manager: str, **more: Any) -> Obj:
    more.setdefault("now", NOW)
    more.setdefault("type", CONFIG_MAP)
    return apply.apply(live, config, manager, **more)


def test_apply_removes_what_the_manifest_no_longer_names_and_keeps_what_others_own() -> None:
    live = applied(None, config_map({"a": "1", "b": "2", "c": "3"}), "me")
    live["metadata"]["uid"] = "1"
    assert entries(live) == {("me", "Apply"): {"f:data": {"f:a": {}, "f:b": {}, "f:c": {}}}}
    other = copy.deepcopy(live)
    other["data"]["x"] = "9"
    live = update(live, other, "other", type=CONFIG_MAP)
    live = applied(live, config_map({"c": "3"}), "they")  # shares c
    live = applied(live, config_map({"a": "1"}), "me", now=LATER)
    assert live["data"] == {"a": "1", "c": "3", "x": "9"}
    assert entries(live) == {
        ("me", "Apply"): {"f:data": {"f:a": {}}},
        ("they", "Apply"): {"f:data": {"f:c": {}}},
        ("other", "Update"): {"f:data": {"f:x": {}}},
    }


def test_conflicts_and_force() -> None:
    live = update(None, config_map({"a": "1", "b": "1"}, uid="1"), "kubectl-client-side-apply", type=CONFIG_MAP)
    with pytest.raises(ApiError) as one:
        applied(live, config_map({"a": "2"}), "me")
    assert one.value.code == 409
    assert one.value.reason == "Conflict"
    assert (
        one.value.message == 'Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1: .data.a'
    )
    assert one.value.details == {
        "causes": [
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "kubectl-client-side-apply" using v1',
                "field": ".data.a",
            }
        ]
    }
    with pytest.raises(ApiError) as two:
        applied(live, config_map({"a": "2", "b": "2"}), "me")
    assert two.value.message == (
        'Apply failed with 2 conflicts: conflicts with "kubectl-client-side-apply" using v1:\n- .data.a\n- .data.b'
    )
    forced = applied(live, config_map({"a": "2"}), "me", force=True)
    assert forced["data"] == {"a": "2", "b": "1"}
    assert entries(forced) == {
        ("me", "Apply"): {"f:data": {"f:a": {}}},
        ("kubectl-client-side-apply", "Update"): {"f:data": {".": {}, "f:b": {}}},
    }


def test_equal_values_are_shared_without_conflict() -> None:
    live = update(None, config_map({"a": "1"}, uid="1"), "other", type=CONFIG_MAP)
    stored = applied(live, config_map({"a": "1"}), "me")
    assert entries(stored)["me", "Apply"] == {"f:data": {"f:a": {}}}
    assert entries(stored)["other", "Update"] == {"f:data": {".": {}, "f:a": {}}}


def test_before_first_apply() -> None:
    live = config_map({"a": "1"}, uid="1")
    with pytest.raises(ApiError) as conflict:
        applied(live, config_map({"a": "2"}), "me")
    assert '"before-first-apply" using v1: .data.a' in conflict.value.message
    stored = applied(live, config_map({"b": "2"}), "me")
    assert entries(stored)["before-first-apply", "Update"] == {"f:data": {".": {}, "f:a": {}}}


def test_untracked_objects_stay_untracked() -> None:
    stored = update(config_map({"a": "1"}, uid="1"), config_map({"a": "2"}, uid="1"), "m", type=CONFIG_MAP)
    assert "managedFields" not in stored["metadata"]


def test_kubectl_takes_over_from_its_client_side_apply() -> None:
    last = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"d"},"data":{"a":"1"}}'
    live = config_map({"a": "1"}, uid="1", annotations={apply.LAST_APPLIED: last})
    live = update(None, live, "kubectl-client-side-apply", type=CONFIG_MAP)
    stored = applied(live, config_map({"a": "2"}), "kubectl")
    assert stored["data"] == {"a": "2"}
    assert '"a":"2"' in stored["metadata"]["annotations"][apply.LAST_APPLIED]
    with pytest.raises(ApiError):
        applied(live, config_map({"a": "2"}), "someone-else")


def test_keyed_lists_merge_and_elements_go() -> None:
    live = deployment()
    live["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "s", "resources": {}})
    live = update(None, live, "creator")
    config: Obj = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "nginx", "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"name": "log", "image": "l"}, {"name": "nginx", "tty": True}]}}},
    }
    stored = applied(live, config, "me", type=DEPLOYMENT)
    containers = stored["spec"]["template"]["spec"]["containers"]
    assert [c["name"] for c in containers] == ["log", "nginx", "sidecar"]
    assert containers[1]["image"] == "nginx"
    assert containers[1]["tty"] is True
    config["spec"]["template"]["spec"]["containers"] = [{"name": "nginx"}]
    stored = applied(stored, config, "me", type=DEPLOYMENT)
    containers = stored["spec"]["template"]["spec"]["containers"]
    assert [c["name"] for c in containers] == ["nginx", "sidecar"]
    assert "tty" not in containers[0]
    assert containers[0]["image"] == "nginx"


def test_key_defaults() -> None:
    config: Obj = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "d"},
        "spec": {"ports": [{"port": 53}, {"port": 53, "protocol": "UDP"}]},
    }
    stored = applied(None, config, "me", type=SERVICE)
    assert list(entries(stored)["me", "Apply"]["f:spec"]["f:ports"]) == [
        'k:{"port":53,"protocol":"TCP"}',
        'k:{"port":53,"protocol":"UDP"}',
    ]


def test_what_does_not_fit_is_refused() -> None:
    for spec, why in (
        ({"foo": 1}, ".spec.foo: field not declared in schema"),
        ({"replicas": "x"}, ".spec.replicas: expected numeric (int or float), got string"),
        (
            {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}},
            '.spec.template.spec.containers: duplicate entries for key [name="a"]',
        ),
    ):
        config = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "n", "namespace": "d"}}
        with pytest.raises(ApiError) as fault:
            applied(None, {**config, "spec": spec}, "me", type=DEPLOYMENT)
        assert fault.value.message == f"failed to create typed patch object (d/n; apps/v1, Kind=Deployment): {why}"
    with pytest.raises(ApiError) as fault:
        applied(None, config_map({}, managedFields=[]), "me")
    assert (fault.value.code, fault.value.message) == (400, "metadata.managedFields must be nil")


def test_noop_apply_keeps_its_time() -> None:
    live = applied(None, config_map({"a": "1"}), "me")
    assert applied(live, config_map({"a": "1"}), "me", now=LATER) == live


def test_only_times_changed() -> None:
    live = applied(None, config_map({"a": "1"}), "me")
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"][0]["time"] = "2030-01-01T00:00:00Z"
    assert apply.keep_timestamps(live, new) == live
    new["data"]["a"] = "2"
    assert apply.keep_timestamps(live, new) is new


def test_custom_resources() -> None:
    crd = schema.type_of_crd(
        "example.com",
        "v1",
        "Widget",
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {
                        "items": {
                            "type": "array",
                            "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["id"],
                            "items": {
                                "type": "object",
                                "properties": {"id": {"type": "integer"}, "v": {"type": "string"}},
                            },
                        },
                        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    },
                }
            },
        },
    )

    def widget(spec: Obj) -> Obj:
        return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}

    live = applied(
        None, widget({"items": [{"id": 1, "v": "a"}], "tags": ["x"], "free": {"a": {"b": 1}}}), "me", type=crd
    )
    assert entries(live)["me", "Apply"] == {
        "f:spec": {
            "f:items": {'k:{"id":1}': {".": {}, "f:id": {}, "f:v": {}}},
            "f:tags": {'v:"x"': {}},
            "f:free": {".": {}, "f:a": {".": {}, "f:b": {}}},
        }
    }
    live = applied(live, widget({"items": [{"id": 2, "v": "b"}], "tags": ["y"]}), "they", type=crd)
    live = applied(live, widget({"tags": ["x"]}), "me", type=crd)
    assert live["spec"] == {"items": [{"id": 2, "v": "b"}], "tags": ["x", "y"]}


def test_entries_of_other_versions_are_compared_in_their_version() -> None:
    """In example.com/v1 the field is `size`, in v2 it is `width`."""

    def typed(version: str, name: str) -> Any:
        spec = {"type": "object", "properties": {name: {"type": "integer"}, "other": {"type": "integer"}}}
        return schema.type_of_crd("example.com", version, "W", {"type": "object", "properties": {"spec": spec}})

    v1, v2 = typed("v1", "size"), typed("v2", "width")

    def convert(obj: Obj, api_version: str) -> tuple[Obj, Any] | None:
        if api_version not in ("example.com/v1", "example.com/v2"):
            return None
        name, type_ = ("size", v1) if api_version.endswith("v1") else ("width", v2)
        spec = {name if k in ("size", "width") else k: v for k, v in obj["spec"].items()}
        return {**obj, "apiVersion": api_version, "spec": spec}, type_

    def widget(version: str, spec: Obj) -> Obj:
        return {"apiVersion": f"example.com/{version}", "kind": "W", "metadata": {"name": "w"}, "spec": spec}

    live = applied(None, widget("v1", {"size": 1, "other": 1}), "one", type=v1)
    live = {**widget("v2", {"width": 1, "other": 1}), "metadata": live["metadata"]}
    with pytest.raises(ApiError) as conflict:
        applied(live, widget("v2", {"width": 2}), "two", type=v2, convert=convert)
    assert conflict.value.details["causes"][0]["field"] == ".spec.size"  # type: ignore[index]
    stored = applied(live, widget("v2", {"width": 2}), "two", type=v2, convert=convert, force=True)
    assert entries(stored) == {
        ("one", "Apply"): {"f:spec": {"f:other": {}}},
        ("two", "Apply"): {"f:spec": {"f:width": {}}},
    }
    shared = applied(live, widget("v2", {"width": 1, "other": 1}), "two", type=v2, convert=convert)
    pruned = applied(shared, widget("v2", {}), "two", type=v2, convert=convert)
    assert pruned["spec"] == {"width": 1, "other": 1}, "one still owns both, in v1"
    live["metadata"]["managedFields"][0]["apiVersion"] = "example.com/v0"  # no longer served
    stored = applied(live, widget("v2", {"width": 2}), "two", type=v2, convert=convert)
    assert entries(stored) == {("two", "Apply"): {"f:spec": {"f:width": {}}}}


# ---- field sets -----------------------------------------------------------------------------------------


def test_field_set_algebra() -> None:
    a = fieldset.of_paths(("f:a",), ("f:a", "f:b"), ("f:c", "f:d"))
    assert a == {"f:a": {".": {}, "f:b": {}}, "f:c": {"f:d": {}}}
    assert fieldset.union({"f:a": {}}, {"f:a": {"f:b": {}}}) == {"f:a": {".": {}, "f:b": {}}}
    assert fieldset.difference(a, {"f:a": {}}) == {"f:a": {"f:b": {}}, "f:c": {"f:d": {}}}
    assert fieldset.difference(a, {"f:a": {"f:b": {}}}) == {"f:a": {}, "f:c": {"f:d": {}}}
    assert fieldset.difference(a, {"f:z": {}}) is a
    assert fieldset.recursive_difference(a, {"f:a": {}, "f:c": {}}) == {}
    assert fieldset.intersection(a, {"f:a": {}, "f:c": {"f:d": {}, "f:e": {}}}) == {"f:a": {}, "f:c": {"f:d": {}}}
    assert list(fieldset.paths(a)) == [("f:a",), ("f:a", "f:b"), ("f:c", "f:d")]
    assert fieldset.show(("f:spec", 'k:{"name":"a"}', "v:1")) == '.spec[name="a"][=1]'
    assert fieldset.has(a, ("f:a",))
    assert not fieldset.has(a, ("f:c",))
