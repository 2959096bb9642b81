"""Webhooks over TLS, asked by a whole server."""

import base64
import copy
import json
import ssl
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from berg.machinery.pki import CertificateAuthority
from tests.unit.apiserver.served_api import Served

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ANYTHING = {
    "type": "object",
    "properties": {"data": {"type": "object", "properties": {k: {"type": "string"} for k in ("start", "stage-1")}}},
}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": ANYTHING}},
            {"name": "v2", "served": True, "storage": False, "schema": {"openAPIV3Schema": ANYTHING}},
        ],
    },
}


class Answer(Exception):
    """What is answered instead of a review."""


class Hook:
    def __init__(self):
        self.paths = []
        self.answer = {"allowed": True}
        self.asked = []
        self.headers = []
        self.config = {}

    async def handle(self, request):
        review = await request.json()
        self.asked.append(review["request"])
        self.headers.append(request.headers)
        self.paths.append(request.path)
        try:
            answer = self.answer(review["request"]) if callable(self.answer) else self.answer
        except Answer as e:
            return e.args[0]
        return web.json_response({**review, "request": None, "response": {"uid": review["request"]["uid"], **answer}})

    def configuration(self, kind, rule, **more):
        webhook = {
            "name": "hook.example.com",
            "clientConfig": self.config,
            "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"], **rule}],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            **more,
        }
        return {"metadata": {"name": "c"}, "kind": kind, "webhooks": [webhook]}


@asynccontextmanager
async def listening(tmp_path, names=("127.0.0.1",)):
    authority = CertificateAuthority.create("hooks")
    certificate, key = authority.issue("hook", names=names, server=True).write(tmp_path, "hook")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    hook = Hook()
    app = web.Application()
    app.router.add_post("/{any:.*}", hook.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    bundle = base64.b64encode(authority.certificate).decode()
    hook.config = {"url": f"https://127.0.0.1:{runner.addresses[0][1]}/h", "caBundle": bundle}
    try:
        yield hook
    finally:
        await runner.cleanup()


def patch(*operations):
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


async def test_a_config_map_is_changed(served: Served, tmp_path):
    async with listening(tmp_path) as hook:
        hook.answer = patch({"op": "add", "path": "/data/stage-1", "value": "yes"})
        configuration = hook.configuration("MutatingWebhookConfiguration", {"resources": ["configmaps"]})
        await served.create(f"{CONFIGURATIONS}/mutatingwebhookconfigurations", configuration)
        made = await served.create(MAPS, {"metadata": {"name": "m"}, "data": {"start": "yes"}})
    assert made["data"] == {"start": "yes", "stage-1": "yes"}
    assert hook.asked[0]["options"]["kind"] == "CreateOptions"


async def test_unknown_authority(served: Served, tmp_path):
    async with listening(tmp_path) as hook:
        hook.config["caBundle"] = base64.b64encode(CertificateAuthority.create("other").certificate).decode()
        configuration = hook.configuration("ValidatingWebhookConfiguration", {"resources": ["configmaps"]})
        await served.create(f"{CONFIGURATIONS}/validatingwebhookconfigurations", configuration)
        code, fault = await served.ask("POST", MAPS, {"metadata": {"name": "m"}})
    assert code == 500
    assert fault["message"].endswith("tls: failed to verify certificate: x509: certificate signed by unknown authority")


async def test_a_service_is_reached_by_its_endpoints(served: Served, tmp_path):
    async with listening(tmp_path, names=("s.default.svc",)) as hook:
        port = int(hook.config.pop("url").rpartition(":")[2].removesuffix("/h"))
        hook.config["service"] = {"name": "s", "namespace": "default", "path": "/h"}
        await served.create(
            "/api/v1/namespaces/default/services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 443}]}}
        )
        labels = {"kubernetes.io/service-name": "s"}
        endpoints = {"addressType": "IPv4", "ports": [{"port": port}], "endpoints": []}
        made = await served.create(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            {"metadata": {"name": "s", "labels": labels}, **endpoints},
        )
        # no address of this machine may be an endpoint, so it is put there behind the server's back
        made["endpoints"] = [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}]
        hooks = served.server.services.hooks
        hooks.api = _With(hooks.api, made)
        configuration = hook.configuration("ValidatingWebhookConfiguration", {"resources": ["configmaps"]})
        await served.create(f"{CONFIGURATIONS}/validatingwebhookconfigurations", configuration)
        await served.create(MAPS, {"metadata": {"name": "m"}})
    assert len(hook.asked) == 1


class _With:
    def __init__(self, api, endpoints):
        self._api, self._endpoints = api, endpoints

    def list(self, r, namespace=None):
        return [self._endpoints] if r.plural == "endpointslices" else self._api.list(r, namespace)

    def __getattr__(self, name):
        return getattr(self._api, name)


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_custom_resources_are_pruned_after_their_webhooks(served: Served, tmp_path, version):
    await served.create(CRDS, copy.deepcopy(CRD))
    await served.clock.advance(0, settle=50)
    async with listening(tmp_path) as hook:
        hook.answer = patch(
            {"op": "add", "path": "/data/stage-1", "value": "yes"},
            {"op": "add", "path": "/data/stage-2", "value": "yes"},
        )
        rule = {"resources": ["things"], "apiGroups": ["example.com"], "apiVersions": ["v1"]}
        configuration = hook.configuration("MutatingWebhookConfiguration", rule)
        await served.create(f"{CONFIGURATIONS}/mutatingwebhookconfigurations", configuration)
        path = f"/apis/example.com/{version}/namespaces/default/things"
        thing = {
            "apiVersion": f"example.com/{version}",
            "kind": "Thing",
            "metadata": {"name": "t"},
            "data": {"start": "yes"},
        }
        made = await served.create(path, thing)
        assert made["data"] == {"start": "yes", "stage-1": "yes"}
        assert made["apiVersion"] == f"example.com/{version}"
        code, made = await served.patch(f"{path}/t", {"data": {"start": "again"}})
        assert (code, made["data"]) == (200, {"start": "again", "stage-1": "yes"})
    assert [r["kind"]["version"] for r in hook.asked] == ["v1", "v1"]
    assert hook.asked[0]["requestKind"] == {"group": "example.com", "version": version, "kind": "Thing"}
    assert hook.asked[0]["object"]["apiVersion"] == "example.com/v1"


async def test_attaching_can_be_refused(served: Served, tmp_path):
    await served.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    await served.create("/api/v1/namespaces/default/pods", pod)
    async with listening(tmp_path) as hook:
        hook.answer = {"allowed": False, "status": {"message": "attaching to pod 'p' is not allowed", "code": 403}}
        rule = {"operations": ["CONNECT"], "resources": ["pods/attach"]}
        configuration = hook.configuration("ValidatingWebhookConfiguration", rule)
        await served.create(f"{CONFIGURATIONS}/validatingwebhookconfigurations", configuration)
        code, fault = await served.ask("POST", "/api/v1/namespaces/default/pods/p/attach?container=c&stdout=true")
    assert (code, fault["message"]) == (
        403,
        "admission webhook \"hook.example.com\" denied the request: attaching to pod 'p' is not allowed",
    )
    assert hook.asked[0]["operation"] == "CONNECT"
    assert hook.asked[0]["subResource"] == "attach"
    assert hook.asked[0]["object"]["kind"] == "PodAttachOptions"


async def test_objects_are_converted_by_the_same_client(served: Served, tmp_path):
    def converted(request):
        wanted = request["desiredAPIVersion"]
        objects = [{**o, "apiVersion": wanted, "data": {"stage-1": o["data"]["start"]}} for o in request["objects"]]
        return {"result": {"status": "Success"}, "convertedObjects": objects}

    async with listening(tmp_path) as hook:
        hook.answer = converted
        crd = copy.deepcopy(CRD)
        webhook = {"clientConfig": hook.config, "conversionReviewVersions": ["v1"]}
        crd["spec"]["conversion"] = {"strategy": "Webhook", "webhook": webhook}
        await served.create(CRDS, crd)
        await served.clock.advance(0, settle=50)
        await served.create(
            "/apis/example.com/v1/namespaces/default/things",
            {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "data": {"start": "a"}},
        )
        found = await served.get("/apis/example.com/v2/namespaces/default/things/t")
        assert found["data"] == {"stage-1": "a"} and found["apiVersion"] == "example.com/v2"
        hook.answer = {"result": {"status": "Failure", "message": "no way"}}
        code, fault = await served.ask("GET", "/apis/example.com/v2/namespaces/default/things/t")
    assert code == 500 and fault["message"].endswith("conversion webhook for example.com/v1, Kind=Thing failed: no way")
    code, fault = await served.ask("GET", "/apis/example.com/v2/namespaces/default/things/t")
    assert code == 500 and 'failed: Post "https://127.0.0.1:' in fault["message"]
