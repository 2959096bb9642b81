"""Others are answered while somebody's expressions take long: rules of definitions, policies, match conditions."""

import asyncio
import threading

import pytest

from berg.machinery.cel.environment import Expression
from tests.unit.apiserver.served_api import Served

MAPS = "/api/v1/namespaces/default/configmaps"
GROUP = "/apis/admissionregistration.k8s.io/v1"
LONG = "{0}.all(a, {0}.all(b, a != b + 'x'))"
KEYS = {f"key-{i}": "value" for i in range(120)}
RULES = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]


@pytest.fixture
def threads(monkeypatch):
    """Where expressions were evaluated."""
    seen = []
    measured = Expression.measured

    def noted(self, *args, **more):
        seen.append(threading.current_thread())
        return measured(self, *args, **more)

    monkeypatch.setattr(Expression, "measured", noted)
    return seen


async def beside(served, path, body):
    """The answer, and how often another client was answered meanwhile."""
    task = asyncio.create_task(served.ask("POST", path, body))
    reads = 0
    while not task.done():
        assert (await served.ask("GET", "/api/v1/namespaces/default"))[0] == 200
        reads += 1
        await asyncio.sleep(0)
    return *task.result(), reads


async def test_rules_of_definitions(served: Served, threads):
    texts = {"type": "array", "maxItems": 300, "items": {"type": "string", "maxLength": 10}}
    schema = {"list": {**texts, "x-kubernetes-validations": [{"rule": LONG.format("self"), "message": "no"}]}}
    version = {"name": "v1", "served": True, "storage": True}
    version["schema"] = {"openAPIV3Schema": {"type": "object", "properties": schema}}
    names = {"plural": "longs", "kind": "Long"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    await served.create(crds, {"metadata": {"name": "longs.example.com"}, "spec": spec})
    await served.clock.advance(0, settle=50)
    body = {"apiVersion": "example.com/v1", "kind": "Long", "metadata": {"name": "l"}, "list": list(KEYS)}
    code, made, reads = await beside(served, "/apis/example.com/v1/namespaces/default/longs", body)
    assert code == 201 and made["list"] == list(KEYS)
    assert threads[-1] is not threading.main_thread() and reads > 3


@pytest.mark.parametrize("where", ["validations", "matchConditions"])
async def test_policies(served: Served, threads, where):
    asking = " && authorizer.group('').resource('pods').namespace('default').check('get').allowed()"
    expression = LONG.format("object.data") + asking
    spec = {"matchConstraints": {"resourceRules": RULES}, "validations": [{"expression": "false", "message": "told"}]}
    if where == "validations":
        spec["validations"] = [{"expression": f"!({expression})", "message": "told"}]
    else:
        spec["matchConditions"] = [{"name": "long", "expression": expression}]
    await served.create(f"{GROUP}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec})
    bound = {"policyName": "p", "validationActions": ["Deny"]}
    await served.create(f"{GROUP}/validatingadmissionpolicybindings", {"metadata": {"name": "p"}, "spec": bound})
    threads.clear()
    code, fault, reads = await beside(served, MAPS, {"metadata": {"name": "m"}, "data": KEYS})
    assert code == 422 and fault["message"].endswith("denied request: told")
    assert any(t is not threading.main_thread() for t in threads) and reads > 3
