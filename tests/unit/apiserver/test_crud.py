"""The verbs on built-in kinds: what is stored, and what is answered."""

from __future__ import annotations

from typing import Any

import orjson

from tests.unit.apiserver.served_api import APPLY, Served

MAPS = "/api/v1/namespaces/default/configmaps"


async def test_create_get_update_delete(served: Served) -> None:
    made = await served.create(MAPS, {"metadata": {"name": "a"}, "data": {"x": "1"}})
    assert made["kind"] == "ConfigMap" and made["metadata"]["uid"] and made["metadata"]["namespace"] == "default"
    assert (await served.get(f"{MAPS}/a")) == made
    made["data"]["x"] = "2"
    code, changed = await served.ask("PUT", f"{MAPS}/a", made)
    assert code == 200 and changed["data"] == {"x": "2"}
    code, stale = await served.ask("PUT", f"{MAPS}/a", made)
    assert code == 409 and stale["reason"] == "Conflict"
    code, gone = await served.ask("DELETE", f"{MAPS}/a")
    assert (code, gone["status"], gone["details"]["uid"]) == (200, "Success", made["metadata"]["uid"])
    code, missing = await served.ask("GET", f"{MAPS}/a")
    assert code == 404 and missing["message"] == 'configmaps "a" not found'


async def test_a_write_that_changes_nothing_writes_nothing(served: Served) -> None:
    made = await served.create(MAPS, {"metadata": {"name": "a"}, "data": {"x": "1"}})
    _, same = await served.patch(f"{MAPS}/a", {"data": {"x": "1"}})
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_generated_names_differ(served: Served) -> None:
    names = {(await served.create(MAPS, {"metadata": {"generateName": "a-"}}))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5 and all(n.startswith("a-") and len(n) == 7 for n in names)


async def test_dry_run_stores_nothing(served: Served) -> None:
    code, shown = await served.ask("POST", f"{MAPS}?dryRun=All", {"metadata": {"name": "a"}})
    assert code == 201 and shown["metadata"]["uid"]
    assert (await served.ask("GET", f"{MAPS}/a"))[0] == 404
    await served.create(MAPS, {"metadata": {"name": "a"}})
    await served.ask("DELETE", f"{MAPS}/a?dryRun=All")
    assert (await served.ask("GET", f"{MAPS}/a"))[0] == 200


async def test_field_validation(served: Served) -> None:
    bad = {"metadata": {"name": "a"}, "dat": {}}
    code, refused = await served.ask("POST", f"{MAPS}?fieldValidation=Strict", bad)
    assert code == 400 and refused["message"].endswith('strict decoding error: unknown field "dat"')
    warned = await served.raw("POST", MAPS, bad)
    assert warned.headers["Warning"] == '299 - "unknown field \\"dat\\""'
    ignored = await served.raw("POST", f"{MAPS}?fieldValidation=Ignore", {**bad, "metadata": {"name": "b"}})
    assert ignored.status == 201 and "Warning" not in ignored.headers


async def test_finalizers_hold_and_let_go(served: Served) -> None:
    await served.create(MAPS, {"metadata": {"name": "a", "finalizers": ["x.y/z"]}})
    _, marked = await served.ask("DELETE", f"{MAPS}/a")
    assert marked["metadata"]["deletionTimestamp"] == "2026-11-21T12:00:00Z"
    code, refused = await served.patch(f"{MAPS}/a", {"metadata": {"finalizers": ["x.y/z", "b.c/d"]}})
    assert code == 422 and "no new finalizers can be added" in refused["message"]
    assert (await served.patch(f"{MAPS}/a", {"metadata": {"finalizers": None}}))[0] == 200
    assert (await served.ask("GET", f"{MAPS}/a"))[0] == 404


async def test_propagation_policies_become_finalizers(served: Served) -> None:
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        await served.create(MAPS, {"metadata": {"name": "a"}})
        _, marked = await served.ask("DELETE", f"{MAPS}/a", {"propagationPolicy": policy})
        assert marked["metadata"]["finalizers"] == [finalizer]
        await served.patch(f"{MAPS}/a", {"metadata": {"finalizers": None}})


async def test_preconditions(served: Served) -> None:
    await served.create(MAPS, {"metadata": {"name": "a"}})
    code, refused = await served.ask("DELETE", f"{MAPS}/a", {"preconditions": {"uid": "other"}})
    assert code == 409 and "does not match the UID in record" in refused["message"]


async def test_pods_go_gracefully(served: Served) -> None:
    await served.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    pods = "/api/v1/namespaces/default/pods"
    await served.create(pods, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    target = {"target": {"kind": "Node", "name": "n1"}}
    code, _ = await served.ask("POST", f"{pods}/p/binding", {"metadata": {"name": "p"}, **target})
    assert code == 201
    code, twice = await served.ask("POST", f"{pods}/p/binding", {"metadata": {"name": "p"}, **target})
    assert code == 409 and twice["message"].endswith('pod p is already assigned to node "n1"')
    _, marked = await served.ask("DELETE", f"{pods}/p")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert marked["metadata"]["deletionTimestamp"] == "2026-11-21T12:00:30Z"
    await served.ask("DELETE", f"{pods}/p", {"gracePeriodSeconds": 0})
    assert (await served.ask("GET", f"{pods}/p"))[0] == 404


async def test_apply_owns_conflicts_and_removes(served: Served) -> None:
    base = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    path = f"{MAPS}/a?fieldManager=one"
    assert (await served.patch(path, {**base, "data": {"x": "1", "y": "1"}}, APPLY))[0] == 201
    other = path.replace("one", "two")
    code, refused = await served.patch(other, {**base, "data": {"x": "2"}}, APPLY)
    assert code == 409 and refused["details"]["causes"][0]["field"] == ".data.x"
    assert (await served.patch(other + "&force=true", {**base, "data": {"x": "2"}}, APPLY))[1]["data"]["x"] == "2"
    _, less = await served.patch(path, base, APPLY)
    assert less["data"] == {"x": "2"}  # y was only one's, x is two's


async def test_scale_and_status_are_views(served: Served) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await served.create(path, {"metadata": {"name": "d"}, "spec": spec})
    scale = await served.get(f"{path}/d/scale")
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == ("Scale", {"replicas": 1}, "a=b")
    await served.patch(f"{path}/d/scale", {"spec": {"replicas": 3}})
    await served.patch(f"{path}/d/status", {"spec": {"replicas": 9}, "status": {"replicas": 2}})
    _, d = await served.patch(f"{path}/d", {"status": {"replicas": 7}})
    assert (d["spec"]["replicas"], d["status"]["replicas"], d["metadata"]["generation"]) == (3, 2, 2)


async def test_what_status_may_write_of_the_metadata(served: Served) -> None:
    """Deployments keep their labels, ServiceCIDRs all; most kinds let everything through."""
    marked = {"metadata": {"labels": {"new": "x"}, "annotations": {"y": "z"}, "finalizers": ["a.b/c"]}}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    workload = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    for path, spec, written in (
        ("/apis/apps/v1/namespaces/default/replicasets", workload, {"labels", "annotations", "finalizers"}),
        ("/apis/apps/v1/namespaces/default/deployments", workload, {"annotations", "finalizers"}),
        ("/apis/networking.k8s.io/v1/servicecidrs", {"cidrs": ["10.9.0.0/24"]}, set()),
    ):
        await served.create(path, {"metadata": {"name": "s"}, "spec": spec})
        code, after = await served.patch(f"{path}/s/status", marked)
        assert (code, after["metadata"].keys() & marked["metadata"].keys()) == (200, written), path
        owned = str(after["metadata"].get("managedFields"))
        assert ("'f:new'" in owned, "'f:y'" in owned) == ("labels" in written, "annotations" in written), path


async def test_namespaces_wait_for_their_content(served: Served) -> None:
    await served.create("/api/v1/namespaces", {"metadata": {"name": "n"}})
    _, going = await served.ask("DELETE", "/api/v1/namespaces/n")
    assert going["status"]["phase"] == "Terminating"
    going["spec"]["finalizers"] = []
    assert (await served.ask("PUT", "/api/v1/namespaces/n/finalize", going))[0] == 200
    assert (await served.ask("GET", "/api/v1/namespaces/n"))[0] == 404


async def test_delete_collection_by_label(served: Served) -> None:
    for name, label in (("a", "x"), ("b", "y"), ("c", "x")):
        await served.create(MAPS, {"metadata": {"name": name, "labels": {"l": label}}})
    await served.ask("DELETE", f"{MAPS}?labelSelector=l%3Dx")
    assert [i["metadata"]["name"] for i in (await served.get(MAPS))["items"]] == ["b"]


async def test_encodings(served: Served) -> None:
    await served.create(MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    yaml = await served.raw("GET", f"{MAPS}/a", accept="application/yaml")
    assert b"\ndata:\n  k: v\n" in b"\n" + yaml.body
    proto = await served.raw("GET", f"{MAPS}/a", accept="application/vnd.kubernetes.protobuf,application/json")
    assert proto.body.startswith(b"k8s\x00") and proto.content_type == "application/vnd.kubernetes.protobuf"
    back = await served.raw("PUT", f"{MAPS}/a", proto.body, content_type="application/vnd.kubernetes.protobuf")
    assert orjson.loads(back.body)["data"] == {"k": "v"}
    assert (await served.raw("GET", f"{MAPS}/a", accept="text/html")).status == 406
    assert (await served.raw("POST", MAPS, b"x", content_type="text/html")).status == 415
    assert (await served.raw("PATCH", f"{MAPS}/a", b"{}", content_type="application/json")).status == 415


async def test_versions_of_one_object(served: Served) -> None:
    path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
    target = {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}
    spec = {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}
    await served.create(path, {"metadata": {"name": "h"}, "spec": spec})
    newer = await served.get(path.replace("v1", "v2") + "/h")
    assert newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    assert "currentReplicas" not in newer["status"]
    older = await served.get(f"{path}/h")
    assert older["spec"]["targetCPUUtilizationPercentage"] == 50
    assert older["status"] == {"currentReplicas": 0, "desiredReplicas": 0}


async def test_finalize_writes_metadata_too(served: Served) -> None:
    await served.create("/api/v1/namespaces", {"metadata": {"name": "n"}})
    path = "/api/v1/namespaces/n/finalize"
    made = await served.get("/api/v1/namespaces/n")
    made["metadata"]["annotations"] = {"a": "b"}
    made["spec"]["finalizers"] = ["kubernetes", "x/y"]
    code, changed = await served.ask("PUT", path, made)
    assert code == 200 and changed["metadata"]["annotations"] == {"a": "b"}
    assert changed["spec"]["finalizers"] == ["kubernetes", "x/y"]


async def test_faults_are_told_in_the_order_in_which_they_stand(served: Served) -> None:
    body = b'{"metadata":{"name":"a","x":1},"zzz":1,"data":{"a":"b"},"data":{},"immutable":false,"immutable":true}'
    code, refused = await served.ask("POST", f"{MAPS}?fieldValidation=Strict", body)
    faults = 'unknown field "metadata.x", unknown field "zzz", duplicate field "data", duplicate field "immutable"'
    assert code == 400 and refused["message"].endswith(f"strict decoding error: {faults}")


async def test_writes_as_upstream_answers_them(served: Served) -> None:
    """Found by sending the same random writes to kube-apiserver and comparing."""
    accounts, roles = "/api/v1/namespaces/default/serviceaccounts", "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    await served.create(accounts, {"metadata": {"name": "a"}, "secrets": [{}]})
    manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}}
    path = f"{accounts}/a?fieldManager=m"
    code, refused = await served.patch(path, manifest, APPLY)
    why = '.secrets: element 0: associative list with keys has an element that omits all key fields ["name"]'
    told = "failed to create manager for existing fields: failed to convert new object (default/a; /v1, Kind="
    assert code == 500 and refused["message"].startswith(f"{told}ServiceAccount) to smd typed: {why}")

    code, refused = await served.patch(path, {"metadata": {"uid": "other"}})
    assert (code, refused["details"]["causes"][0]["field"]) == (422, "metadata.uid")
    code, refused = await served.patch(path, {"apiVersion": {}})
    assert (code, "cannot unmarshal object into Go struct field .apiVersion" in refused["message"]) == (422, True)

    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"a": "!"}}
    code, refused = await served.patch("/api/v1/namespaces/default/secrets/a?fieldManager=m", secret, APPLY)
    to = "to proper version: unable to convert unstructured object to /v1, Kind=Secret: error decoding from json: "
    told = f"failed to convert new object (/a; /v1, Kind=Secret) {to}illegal base64 data at input byte 0"
    assert (code, refused["message"]) == (500, told)

    made = await served.create(roles, {"metadata": {"name": "none"}, "rules": []})
    assert made["rules"] is None
    made = await served.create("/api/v1/namespaces/default/secrets", {"metadata": {"name": "n"}, "data": {"a": None}})
    assert made["data"] == {"a": ""}
    target = {"kind": "Deployment", "name": "d", "apiVersion": "v1"}
    spec = {"scaleTargetRef": target, "maxReplicas": 3}
    path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
    code, refused = await served.ask("POST", path, {"metadata": {"name": "h"}, "spec": spec})
    assert (code, refused["details"]["causes"][0]["message"]) == (
        422,
        'Invalid value: "v1": apiVersion must specify API group',
    )


async def test_a_reference_without_a_name_is_known_by_none(served: Served) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments/d?fieldManager=m"

    async def apply(secrets: list[dict[str, str]]) -> tuple[int, Any]:
        pod = {"containers": [{"name": "a", "image": "x"}], "imagePullSecrets": secrets}
        template = {"metadata": {"labels": {"a": "b"}}, "spec": pod}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}
        return await served.patch(path, manifest, APPLY)

    code, made = await apply([{}, {"name": "a"}])
    owned = made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:imagePullSecrets"]
    assert (code, owned) == (201, {'k:{"name":""}': {}, 'k:{"name":"a"}': {}})
    code, changed = await apply([{"name": "a"}])
    assert (code, changed["spec"]["template"]["spec"]["imagePullSecrets"]) == (200, [{"name": "a"}])
    code, refused = await apply([{}, {}])
    assert (code, refused["message"].rpartition(": ")[2]) == (500, 'duplicate entries for key [name=""]')


async def test_a_conflict_of_uids_names_the_key_in_the_store(served: Served) -> None:
    await served.create(MAPS, {"metadata": {"name": "a"}})
    code, refused = await served.ask("PUT", f"{MAPS}/a", {"metadata": {"name": "a", "uid": "x"}})
    assert code == 409 and "Key: /configmaps/default/a, ResourceVersion: 0" in refused["message"]


async def test_owners_that_stand_twice_are_told_each_time(served: Served) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    body = {"metadata": {"name": "a", "ownerReferences": [owner, dict(owner), dict(owner)]}}
    made = await served.create(MAPS, body)
    assert made["metadata"]["ownerReferences"] == [owner]
