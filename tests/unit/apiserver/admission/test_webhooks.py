import base64
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

import berg.apiserver.kinds  # noqa: F401
from berg.apiserver.admission.chain import AdmissionChain
from berg.apiserver.admission.interface import DELETE
from berg.machinery.status import ApiError

from .fakes import FakeApi, attributes, namespace, pod

RULES = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]}]


class Hooks:
    """A webhook server: what each path answers, and what it was asked."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.base = ""

    async def handle(self, request):
        review = await request.json()
        self.asked.append((request.path, review["request"]))
        answer = self.answers[request.path]
        if callable(answer):
            answer = answer(review["request"])
        if isinstance(answer, int):
            return web.Response(status=answer, text="broken")
        response = {"uid": review["request"]["uid"], **answer}
        return web.json_response({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response})

    def webhook(self, path, answer, **more):
        self.answers[path] = answer
        return {
            "name": f"{path[1:]}.example.com",
            "clientConfig": {"url": self.base + path},
            "rules": RULES,
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "timeoutSeconds": 2,
            **more,
        }


@pytest.fixture
async def server():
    hooks = Hooks()
    app = web.Application()
    app.router.add_post("/{any:.*}", hooks.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hooks.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield hooks
    await runner.cleanup()


@asynccontextmanager
async def chain(kind, *webhooks, more=()):
    configuration = {"metadata": {"name": "c"}, "webhooks": list(webhooks)}
    api = FakeApi(namespace(team="a"), (f"{kind}.admissionregistration.k8s.io", configuration), *more)
    plugins = AdmissionChain(api)
    plugins.plugins = [p for p in plugins.plugins if p.name.endswith("Webhook")]
    yield plugins
    await plugins.close()


def validating(*webhooks):
    return chain("validatingwebhookconfigurations", *webhooks)


def mutating(*webhooks):
    return chain("mutatingwebhookconfigurations", *webhooks)


def patch(*operations):
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


async def test_review_and_warnings(server):
    answer = {"allowed": True, "warnings": ["careful"], "auditAnnotations": {"k": "v"}}
    async with validating(server.webhook("/w", answer)) as plugins:
        a = attributes("pods", pod())
        await plugins.run_validating(a)
    _, request = server.asked[0]
    assert request["kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert request["resource"] == request["requestResource"] == {"group": "", "version": "v1", "resource": "pods"}
    assert (request["name"], request["namespace"], request["operation"]) == ("web", "ns", "CREATE")
    assert request["userInfo"]["username"] == "alice"
    assert request["object"]["metadata"]["name"] == "web"
    assert request["oldObject"] is None
    assert a.warnings == ["careful"]
    assert a.audit_annotations["w.example.com/k"] == "v"


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (
            {"allowed": False, "status": {"code": 403, "message": "no", "reason": "Forbidden"}},
            403,
            'admission webhook "w.example.com" denied the request: no',
        ),
        ({"allowed": False}, 400, 'admission webhook "w.example.com" denied the request without explanation'),
        (
            {"allowed": False, "status": {"code": 200}},
            400,
            'admission webhook "w.example.com" denied the request without explanation',
        ),
        (
            500,
            500,
            'Internal error occurred: failed calling webhook "w.example.com": failed to call webhook: '
            'an error on the server ("broken") has prevented the request from succeeding',
        ),
        (
            {"allowed": True, "uid": "x"},
            500,
            'Internal error occurred: failed calling webhook "w.example.com": received invalid webhook response: '
            "expected response.uid=",
        ),
        (
            patch({"op": "add", "path": "/x", "value": 1}),
            500,
            'Internal error occurred: failed calling webhook "w.example.com": received invalid webhook response: '
            "validating webhook may not return response.patch",
        ),
    ],
)
async def test_refusals(server, answer, code, message):
    async with validating(server.webhook("/w", answer)) as plugins:
        with pytest.raises(ApiError) as caught:
            await plugins.run_validating(attributes("pods", pod()))
    assert caught.value.code == code
    assert caught.value.message.startswith(message)


async def test_failure_policy(server):
    gone = {"clientConfig": {"url": "https://127.0.0.1:1/x"}}
    async with validating(server.webhook("/w", {}, **gone, failurePolicy="Ignore")) as plugins:
        a = attributes("pods", pod())
        await plugins.run_validating(a)
        assert a.audit_annotations == {
            "failed-open.validating.webhook.admission.k8s.io/round_0_index_0": "w.example.com"
        }
    async with validating(server.webhook("/w", {}, **gone)) as plugins:
        with pytest.raises(ApiError) as caught:
            await plugins.run_validating(attributes("pods", pod()))
    assert caught.value.message == (
        'Internal error occurred: failed calling webhook "w.example.com": failed to call webhook: '
        'Post "https://127.0.0.1:1/x?timeout=2s": dial tcp 127.0.0.1:1: connect: connection refused'
    )


async def test_services_are_looked_up(server):
    service = {"service": {"name": "s", "namespace": "ns", "path": "/p"}}
    async with validating(server.webhook("/w", {}, clientConfig=service)) as plugins:
        with pytest.raises(ApiError) as caught:
            await plugins.run_validating(attributes("pods", pod()))
    assert caught.value.message == (
        'Internal error occurred: failed calling webhook "w.example.com": failed to call webhook: '
        'Post "https://s.ns.svc:443/p?timeout=2s": service "s" not found'
    )


@pytest.mark.parametrize(
    ("more", "called"),
    [
        ({}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, False),
        ({"objectSelector": {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}}, True),
        ({"rules": [{**RULES[0], "operations": ["DELETE"]}]}, False),
        ({"rules": [{**RULES[0], "resources": ["*"], "scope": "Namespaced"}]}, True),
        ({"matchConditions": [{"name": "c", "expression": "object.metadata.name == 'other'"}]}, False),
        ({"matchConditions": [{"name": "c", "expression": "request.operation == 'CREATE'"}]}, True),
    ],
)
async def test_who_is_called(server, more, called):
    async with validating(server.webhook("/w", {"allowed": True}, **more)) as plugins:
        await plugins.run_validating(attributes("pods", pod()))
    assert bool(server.asked) is called


async def test_dry_run_needs_no_side_effects(server):
    async with validating(server.webhook("/w", {"allowed": True}, sideEffects="Some")) as plugins:
        with pytest.raises(ApiError, match=r'webhook "w\.example\.com" does not support dry run'):
            await plugins.run_validating(attributes("pods", pod(), dry_run=True))


async def test_equivalent_versions_are_converted(server):
    rules = [
        {
            "apiGroups": ["autoscaling"],
            "apiVersions": ["v1"],
            "operations": ["*"],
            "resources": ["horizontalpodautoscalers"],
        }
    ]
    obj = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h", "namespace": "ns"},
    }
    obj["spec"] = {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}
    for policy, asked in (("Exact", 0), ("Equivalent", 1)):
        async with validating(server.webhook("/w", {"allowed": True}, rules=rules, matchPolicy=policy)) as plugins:
            await plugins.run_validating(attributes("horizontalpodautoscalers.autoscaling", obj))
        assert len(server.asked) == asked
    _, request = server.asked[0]
    assert request["object"]["apiVersion"] == "autoscaling/v1"
    assert request["resource"]["version"] == "v1"
    assert request["requestResource"]["version"] == "v2"


async def test_patches_are_defaulted_and_seen_by_the_next(server):
    add = patch({"op": "add", "path": "/spec/containers/-", "value": {"name": "side", "image": "b:1"}})
    async with mutating(server.webhook("/one", add), server.webhook("/two", {"allowed": True})) as plugins:
        a = attributes("pods", pod())
        await plugins.run_mutating(a)
    assert [c["name"] for c in a.obj["spec"]["containers"]] == ["c", "side"]
    assert a.obj["spec"]["containers"][1]["imagePullPolicy"] == "IfNotPresent"
    assert [p for p, _ in server.asked] == ["/one", "/two"]
    assert len(server.asked[1][1]["object"]["spec"]["containers"]) == 2
    assert a.audit_annotations["mutation.webhook.admission.k8s.io/round_0_index_0"] == (
        '{"configuration":"c","webhook":"one.example.com","mutated":true}'
    )


async def test_reinvocation(server):
    add = patch({"op": "add", "path": "/metadata/labels", "value": {"x": "y"}})
    again = server.webhook("/one", {"allowed": True}, reinvocationPolicy="IfNeeded")
    async with mutating(again, server.webhook("/two", add), server.webhook("/three", {"allowed": True})) as plugins:
        await plugins.run_mutating(attributes("pods", pod()))
    assert [p for p, _ in server.asked] == ["/one", "/two", "/three", "/one"]


async def test_a_deletion_cannot_be_patched(server):
    add = patch({"op": "add", "path": "/x", "value": 1})
    async with mutating(server.webhook("/one", add)) as plugins:
        with pytest.raises(ApiError, match="attempted to modify the object, which is not supported for this operation"):
            await plugins.run_mutating(attributes("pods", None, pod(), operation=DELETE))


async def test_what_a_webhook_adds_is_pruned():
    from berg.apiserver.admission.sight import Sight
    from berg.machinery.resources import resource

    a = attributes("pods", pod())
    changed = {**pod(), "unheard": 1}
    await Sight(Empty(), a).take(changed, resource("pods"))
    assert "unheard" not in a.obj and a.obj["metadata"]["name"]


class Empty:
    def strategy(self, _):
        from berg.apiserver.registry.strategy import Strategy

        return Strategy()
