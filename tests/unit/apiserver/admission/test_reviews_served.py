"""What webhooks are asked by a whole server, and what becomes of what they answer: as upstream's server did it."""

import base64
import copy

import pytest

from berg.apiserver.http.hook_credentials import Credentials
from tests.unit.apiserver.admission.test_webhooks_served import CONFIGURATIONS, CRD, CRDS, MAPS, listening, patch
from tests.unit.apiserver.admission.test_webhooks_served import Answer as _Answer
from tests.unit.apiserver.served_api import APPLY, Served

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PODS = "/api/v1/namespaces/default/pods"
MUTATING, VALIDATING = "mutatingwebhookconfigurations", "validatingwebhookconfigurations"
KINDS = {MUTATING: "MutatingWebhookConfiguration", VALIDATING: "ValidatingWebhookConfiguration"}


async def hooked(served, hook, which, *resources, **more):
    rule = {"resources": list(resources or ["configmaps"]), "operations": ["*"]}
    await served.create(f"{CONFIGURATIONS}/{which}", hook.configuration(KINDS[which], rule, **more))


@pytest.fixture
async def hook(tmp_path):
    async with listening(tmp_path) as found:
        yield found


async def test_patches_come_as_updates(served: Served, hook):
    await hooked(served, hook, VALIDATING)
    await served.create(MAPS, {"metadata": {"name": "m"}})
    await served.ask("PUT", f"{MAPS}/m?fieldValidation=Strict", {"metadata": {"name": "m"}, "data": {"a": "b"}})
    await served.patch(f"{MAPS}/m", {"data": {"a": "c"}})
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"d": "e"}}
    await served.patch(f"{MAPS}/m?fieldManager=f&force=true", manifest, APPLY)
    manifest["metadata"]["name"] = "n"
    await served.patch(f"{MAPS}/n?fieldManager=f", manifest, APPLY)
    assert [r["options"] for r in hook.asked] == [
        {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "fieldValidation": "Strict"},
        {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"},
        {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "f"},
        {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "f"},
    ]
    assert "resourceVersion" in hook.asked[1]["object"]["metadata"]


async def test_what_a_webhook_may_not_change(served: Served, hook):
    await served.create(MAPS, {"metadata": {"name": "m"}})
    await hooked(served, hook, MUTATING)
    for path, value, code, reason in (
        ("resourceVersion", "1", 409, "Conflict"),
        ("uid", "abc", 422, "Invalid"),
        ("name", "other", 422, "Invalid"),
        ("namespace", "other", 400, "BadRequest"),
    ):
        hook.answer = patch({"op": "add", "path": f"/metadata/{path}", "value": value})
        got, fault = await served.ask("PUT", f"{MAPS}/m", {"metadata": {"name": "m"}, "data": {"k": path}})
        assert (got, fault["reason"]) == (code, reason), path
    assert "resourceVersion" not in hook.asked[0]["object"]["metadata"]
    hook.answer = patch({"op": "replace", "path": "/apiVersion", "value": "v9"})
    _, fault = await served.ask("PUT", f"{MAPS}/m", {"metadata": {"name": "m"}})
    assert 'no kind "ConfigMap" is registered for version "v9"' in fault["message"]


async def test_a_webhook_may_name_what_has_no_name(served: Served, hook):
    await hooked(served, hook, MUTATING)
    hook.answer = patch({"op": "add", "path": "/metadata/name", "value": "named"})
    made = await served.create(MAPS, {"metadata": {"generateName": "g-"}})
    assert made["metadata"]["name"] == "named"


async def test_scales_are_seen_as_scales(served: Served, hook):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    await served.create(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec})
    await hooked(served, hook, MUTATING, "*/scale", rules=[_rule("apps", "*/scale")])
    hook.answer = patch({"op": "replace", "path": "/spec/replicas", "value": 5})
    code, scale = await served.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 2}})
    assert (code, scale["spec"]) == (200, {"replicas": 5})
    manifest = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 3}}
    code, scale = await served.ask("PUT", f"{DEPLOYMENTS}/d/scale", manifest)
    assert (code, scale["spec"]) == (200, {"replicas": 5})
    for request in hook.asked:
        assert request["kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        assert (request["object"]["kind"], request["oldObject"]["kind"]) == ("Scale", "Scale")
    assert [r["object"]["spec"]["replicas"] for r in hook.asked] == [2, 3]
    assert hook.asked[1]["oldObject"]["spec"] == {"replicas": 5}
    hook.answer = patch({"op": "replace", "path": "/spec/replicas", "value": -5})
    code, fault = await served.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 2}})
    assert code == 422 and fault["message"].startswith('Scale.autoscaling "d" is invalid')


def _rule(group, *resources, operations=("*",)):
    return {"apiGroups": [group], "apiVersions": ["*"], "operations": list(operations), "resources": list(resources)}


async def test_a_deletion_of_many_names_nobody(served: Served, hook):
    await served.create(MAPS, {"metadata": {"name": "m", "labels": {"x": "y"}}})
    await hooked(served, hook, VALIDATING)
    code, _ = await served.ask("DELETE", f"{MAPS}?labelSelector=x%3Dy")
    assert code == 200
    assert "name" not in hook.asked[0] and hook.asked[0]["oldObject"]["metadata"]["name"] == "m"


async def test_webhooks_change_evictions_and_bindings(served: Served, hook):
    await served.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    await served.create(PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    await hooked(served, hook, MUTATING, "pods/eviction", "pods/binding", "bindings")
    hook.answer = patch({"op": "add", "path": "/deleteOptions", "value": {"dryRun": ["All"]}})
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    code, _ = await served.ask("POST", f"{PODS}/p/eviction", eviction)
    assert code == 201 and "deletionTimestamp" not in (await served.get(f"{PODS}/p"))["metadata"]
    hook.answer = patch({"op": "replace", "path": "/target/name", "value": "n2"})
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    await served.create("/api/v1/namespaces/default/bindings", binding)
    assert (await served.get(f"{PODS}/p"))["spec"]["nodeName"] == "n2"
    assert hook.asked[1]["resource"]["resource"] == "bindings" and "subResource" not in hook.asked[1]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"allowed": "true"},
            "json: cannot unmarshal string into Go struct field AdmissionResponse.response.allowed of type bool",
        ),
        ({"allowed": True, "warnings": [1]}, "AdmissionResponse.response.warnings of type string"),
        ({"allowed": False, "status": "no"}, "AdmissionResponse.response.status of type v1.Status"),
        ({"allowed": True, "auditAnnotations": ["w"]}, "auditAnnotations of type map[string]string"),
        ({"allowed": True, "patchType": "JSONPatch", "patch": "%%"}, "illegal base64 data at input byte 0"),
    ],
)
async def test_answers_of_other_types(served: Served, hook, answer, message):
    await hooked(served, hook, VALIDATING)
    hook.answer = answer
    code, fault = await served.ask("POST", MAPS, {"metadata": {"name": "m"}})
    assert code == 500 and fault["message"].endswith(message)


async def test_a_denial_passes_on_what_was_said(served: Served, hook):
    await hooked(served, hook, VALIDATING)
    details = {"name": "n", "causes": [{"field": "f"}]}
    said = {"status": "Success", "code": 418, "message": "m", "details": details, "metadata": {"continue": "x"}}
    hook.answer = {"allowed": False, "status": said}
    code, fault = await served.ask("POST", MAPS, {"metadata": {"name": "m"}})
    assert (code, fault["status"], fault["metadata"]) == (418, "Failure", {"continue": "x"})
    assert fault["details"] == details


async def test_figures(served: Served, hook):
    await hooked(served, hook, VALIDATING, failurePolicy="Ignore")
    answers = ({"allowed": True}, {"allowed": False, "status": {"code": 999}}, {"allowed": "x"})
    for i, hook.answer in enumerate(answers):
        await served.ask("POST", MAPS, {"metadata": {"name": f"m{i}"}})
    name = 'name="hook.example.com",operation="CREATE"'
    prefix, last = "apiserver_admission_webhook", 'type="validating"'
    counted = (await served.raw("GET", "/metrics")).body.decode()
    for line in (
        f'{prefix}_request_total{{code="200",{name},rejected="false",{last}}} 1',
        f'{prefix}_request_total{{code="600",{name},rejected="true",{last}}} 1',
        f'{prefix}_request_total{{code="503",{name},rejected="false",{last}}} 1',
        f'{prefix}_rejection_count{{error_type="no_error",{name},rejection_code="600",{last}}} 1',
        f'{prefix}_fail_open_count{{name="hook.example.com",{last}}} 1',
        f'{prefix}_admission_duration_seconds_count{{{name},rejected="false",{last}}} 2',
    ):
        assert line in counted.splitlines()


async def test_only_keys_that_may_stand_in_the_audit_log(served: Served):
    from .fakes import attributes, pod

    a = attributes("pods", pod())
    for key in ("h.com/good", "h.com/a b", "h.com/", "h.com/a/b", "h.com/ä", "h.com/good"):
        a.annotate(key, str(len(a.audit_annotations)))
    assert a.audit_annotations == {"h.com/good": "0"}


async def test_credentials_are_shown(served: Served, hook):
    served.server.services.hooks._credentials = Credentials({"users": [{"name": "*", "user": {"token": "t"}}]})
    await hooked(served, hook, VALIDATING)
    await served.create(MAPS, {"metadata": {"name": "m"}})
    assert hook.headers[0]["Authorization"] == "Bearer t"


async def test_custom_resources_a_webhook_spoils(served: Served, hook):
    await served.create(CRDS, copy.deepcopy(CRD))
    await served.clock.advance(0, settle=50)
    rule = {"resources": ["things"], "apiGroups": ["example.com"]}
    await served.create(f"{CONFIGURATIONS}/{MUTATING}", hook.configuration(KINDS[MUTATING], rule))
    thing = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}}
    for path, value, code, message in (
        ("/kind", "Other", 422, 'Other.example.com "t" is invalid: kind: Invalid value: "Other": must be Thing'),
        ("/apiVersion", "o/v1", 500, 'o/v1, Kind=Thing is unstructured and is not suitable for converting to "'),
        ("", {"a": 1}, 500, "Internal error occurred: Object 'Kind' is missing in '{\"a\":1}'"),
    ):
        hook.answer = patch({"op": "replace", "path": path, "value": value})
        got, fault = await served.ask("POST", "/apis/example.com/v1/namespaces/default/things", thing)
        assert (got, fault["message"][: len(message)]) == (code, message)
    hook.answer = patch({"op": "add", "path": "/metadata/labels", "value": "x"})
    made = await served.create("/apis/example.com/v1/namespaces/default/things", thing)
    assert "labels" not in made["metadata"]


def test_what_a_patch_is():
    from berg.apiserver.admission.webhook.hooks import CallFailed, Hook
    from berg.apiserver.admission.webhook.review import _operations

    hook = Hook("c", 0, {"name": "h"})
    assert _operations(hook, base64.b64encode(b"null").decode()) == []
    with pytest.raises(CallFailed, match=r"cannot unmarshal object into Go value of type jsonpatch\.Patch"):
        _operations(hook, base64.b64encode(b"{}").decode())


async def test_who_asks_for_patience_is_asked_again(served: Served, hook):
    from aiohttp import web

    answers = iter([{"code": 429, "later": "0"}, {"code": 307, "to": "/elsewhere"}, None])

    def answer(request):
        said = next(answers)
        if said is None:
            return {"allowed": True}
        headers = {"Retry-After": said["later"]} if "later" in said else {"Location": said["to"]}
        raise _Answer(web.Response(status=said["code"], headers=headers))

    hook.answer = answer
    await hooked(served, hook, VALIDATING)
    await served.create(MAPS, {"metadata": {"name": "m"}})
    assert hook.paths == ["/h", "/h", "/elsewhere"]


async def test_huge_pauses_are_not_made(served: Served, hook):
    from aiohttp import web

    def answer(request):
        raise _Answer(web.Response(status=503, headers={"Retry-After": "9" * 5000}))

    hook.answer = answer
    await hooked(served, hook, VALIDATING)
    code, fault = await served.ask("POST", MAPS, {"metadata": {"name": "m"}})
    assert code == 500 and fault["message"].endswith("the server is currently unable to handle the request")


async def test_conversions_that_fail_before_a_webhook_is_asked(served: Served, hook):
    crd = copy.deepcopy(CRD)
    hook.answer = lambda request: (
        {"result": {"status": "Failure", "message": "cannot"}} if "objects" in request else {"allowed": True}
    )
    webhook = {"clientConfig": hook.config, "conversionReviewVersions": ["v1"]}
    crd["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
    await served.create(CRDS, crd)
    await served.clock.advance(0, settle=50)
    rule = {"resources": ["things"], "apiGroups": ["example.com"], "apiVersions": ["v1"]}
    await served.create(f"{CONFIGURATIONS}/{VALIDATING}", hook.configuration(KINDS[VALIDATING], rule))
    thing = {"apiVersion": "example.com/v2", "kind": "Thing", "metadata": {"name": "t"}}
    code, fault = await served.ask("POST", "/apis/example.com/v2/namespaces/default/things", thing)
    assert (code, fault["reason"]) == (500, "InternalError")
    why = "conversion webhook for example.com/v2, Kind=Thing failed: cannot"
    assert fault["message"] == f"Internal error occurred: {why}"
