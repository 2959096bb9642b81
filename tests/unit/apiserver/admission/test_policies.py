import pytest

import berg.apiserver.kinds  # noqa: F401
from berg.apiserver.admission.chain import AdmissionChain
from berg.machinery.status import ApiError

from .fakes import FakeApi, attributes, namespace, pod

PODS = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]


def policy(kind="validatingadmissionpolicies", name="p", **spec):
    body = {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": PODS, "matchPolicy": "Equivalent"}, **spec}
    return f"{kind}.admissionregistration.k8s.io", {"metadata": {"name": name}, "spec": body}


def binding(kind="validatingadmissionpolicybindings", name="b", **spec):
    body = {"policyName": "p", "validationActions": ["Deny"], **spec}
    return f"{kind}.admissionregistration.k8s.io", {"metadata": {"name": name}, "spec": body}


def chain(*objects):
    api = FakeApi(namespace(team="a"), *objects)
    names = ("ValidatingAdmissionPolicy", "MutatingAdmissionPolicy")
    plugins = AdmissionChain(api)
    plugins.plugins = [p for p in plugins.plugins if p.name in names]
    return plugins


async def refused(plugins, a):
    with pytest.raises(ApiError) as caught:
        await plugins.run_validating(a)
    return caught.value


WHERE = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: "


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"validations": [{"expression": "object.spec.containers.size() > 1"}]},
            "failed expression: object.spec.containers.size() > 1",
        ),
        ({"validations": [{"expression": "false", "message": "no way"}]}, "no way"),
        ({"validations": [{"expression": "false", "messageExpression": "'got ' + object.metadata.name"}]}, "got web"),
        (
            {"validations": [{"expression": "object.spec.nope == 1"}]},
            "expression 'object.spec.nope == 1' resulted in error: no such key: nope",
        ),
        (
            {
                "variables": [{"name": "n", "expression": "object.spec.containers.size()"}],
                "validations": [
                    {"expression": "variables.n > 5", "messageExpression": "'only ' + string(variables.n)"}
                ],
            },
            "only 1",
        ),
        ({"validations": [{"expression": "namespaceObject.metadata.labels.team == 'b'", "message": "team"}]}, "team"),
        (
            {
                "validations": [
                    {
                        "expression": "authorizer.group('').resource('pods').check('delete').allowed()",
                        "message": "may not",
                    }
                ]
            },
            "may not",
        ),
        ({"validations": [{"expression": "request.userInfo.username == 'bob'", "message": "only bob"}]}, "only bob"),
    ],
)
async def test_validation_messages(spec, message):
    error = await refused(chain(policy(**spec), binding()), attributes("pods", pod()))
    assert error.message == f'pods "web" is forbidden: {WHERE}{message}'
    assert (error.code, error.reason) == (422, "Invalid")


async def test_failure_policy_and_match_conditions():
    broken = [{"expression": "object.spec.nope == 1"}]
    await chain(policy(failurePolicy="Ignore", validations=broken), binding()).run_validating(attributes("pods", pod()))
    unmet = [{"name": "c", "expression": "object.metadata.name == 'other'"}]
    await chain(policy(matchConditions=unmet, validations=broken), binding()).run_validating(attributes("pods", pod()))


async def test_actions_and_audit_annotations():
    given = policy(
        validations=[{"expression": "false", "message": "bad", "reason": "Forbidden"}],
        auditAnnotations=[{"key": "k", "valueExpression": "'name ' + object.metadata.name"}],
    )
    a = attributes("pods", pod())
    await chain(given, binding(validationActions=["Warn", "Audit"])).run_validating(a)
    assert a.warnings == ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': bad"]
    assert a.audit_annotations["p/k"] == "name web"
    assert '"message":"bad"' in a.audit_annotations["validation.policy.admission.k8s.io/validation_failure"]
    error = await refused(chain(given, binding()), attributes("pods", pod()))
    assert (error.code, error.reason) == (403, "Forbidden")


async def test_parameters():
    given = policy(
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        validations=[{"expression": "object.spec.containers.size() > int(params.data.least)", "message": "too few"}],
    )
    config = ("configmaps", {"metadata": {"name": "c", "namespace": "ns"}, "data": {"least": "1"}})
    ref = {"name": "c", "parameterNotFoundAction": "Deny"}
    error = await refused(chain(given, binding(paramRef=ref), config), attributes("pods", pod()))
    assert error.message.endswith("denied request: too few")
    error = await refused(chain(given, binding(paramRef=ref)), attributes("pods", pod()))
    assert error.message.endswith(
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    )
    await chain(given, binding(paramRef={"name": "c", "parameterNotFoundAction": "Allow"})).run_validating(
        attributes("pods", pod())
    )


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, False),
        ({"namespaceSelector": {"matchLabels": {"team": "a"}}}, True),
        ({"objectSelector": {"matchLabels": {"x": "y"}}}, False),
        ({"resourceRules": [{**PODS[0], "operations": ["UPDATE"]}]}, False),
        ({"resourceRules": [{**PODS[0], "resourceNames": ["web"]}]}, True),
        ({"resourceRules": [{**PODS[0], "scope": "Cluster"}]}, False),
        ({"resourceRules": [{**PODS[0], "resources": ["*/*"], "apiGroups": ["*"]}]}, True),
        ({"excludeResourceRules": PODS}, False),
    ],
)
async def test_matching(resources, wanted):
    plugins = chain(policy(validations=[{"expression": "false"}]), binding(matchResources=resources))
    a = attributes("pods", pod())
    if wanted:
        await refused(plugins, a)
    else:
        await plugins.run_validating(a)


def mutating(*mutations, **spec):
    kind = "mutatingadmissionpolicies"
    return policy(kind, mutations=list(mutations), **spec), binding("mutatingadmissionpolicybindings")


APPLY = {
    "patchType": "ApplyConfiguration",
    "applyConfiguration": {
        "expression": "Object{metadata: Object.metadata{labels: {'team': namespaceObject.metadata.labels.team}},"
        " spec: Object.spec{containers: [Object.spec.containers{name: 'side', image: 'busybox'}]}}"
    },
}
PATCH = {
    "patchType": "JSONPatch",
    "jsonPatch": {
        "expression": "has(object.metadata.annotations) ? [] : ["
        "JSONPatch{op: 'add', path: '/metadata/annotations', value: {'a/b': 'c'}}]"
    },
}


async def test_mutations():
    a = attributes("pods", pod())
    await chain(*mutating(APPLY, PATCH)).run_mutating(a)
    assert a.obj["metadata"]["labels"] == {"team": "a"}
    assert a.obj["metadata"]["annotations"] == {"a/b": "c"}
    assert {c["name"] for c in a.obj["spec"]["containers"]} == {"c", "side"}
    assert all(c["imagePullPolicy"] == "Always" for c in a.obj["spec"]["containers"])


async def test_atomic_lists_are_not_merged():
    bad = {
        "patchType": "ApplyConfiguration",
        "applyConfiguration": {
            "expression": "Object{spec: Object.spec{tolerations: [Object.spec.tolerations{key: 'a'}]}}"
        },
    }
    with pytest.raises(ApiError) as caught:
        await chain(*mutating(bad)).run_mutating(attributes("pods", pod()))
    assert caught.value.message == (
        "policy 'p' with binding 'b' denied request: error applying patch: invalid ApplyConfiguration: "
        "may not mutate atomic arrays, maps or structs: .spec.tolerations"
    )


def applying(text):
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": text}}


def patching(text):
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": text}}


@pytest.mark.parametrize(
    ("mutation", "why"),
    [
        (
            applying("Object{foo: 'a'}"),
            "error applying patch: failed to convert patch object to typed object: .foo: field not declared in schema",
        ),
        (
            applying("Object{metadata: Object.metadata{labels: {'a': 5}}}"),
            "error applying patch: failed to convert patch object to typed object: .metadata.labels.a: expected "
            "string, got &value.valueUnstructured{Value:5}",
        ),
        (
            patching("[JSONPatch{op: 'remove', path: '/spec/zz'}]"),
            "JSON Patch: error in remove for path: '/spec/zz': Unable to remove nonexistent key: zz: missing value",
        ),
        (patching("[JSONPatch{op: 'foo', path: '/spec'}]"), "JSON Patch: Unexpected kind: foo"),
    ],
)
async def test_mutations_that_do_not_fit(mutation, why):
    with pytest.raises(ApiError) as caught:
        await chain(*mutating(mutation)).run_mutating(attributes("pods", pod()))
    assert caught.value.message == f"policy 'p' with binding 'b' denied request: {why}"


async def test_a_patch_whose_test_fails_is_for_another_object():
    a = attributes("pods", pod())
    before = a.obj["metadata"].get("labels")
    text = "[JSONPatch{op: 'test', path: '/metadata/name', value: 'other'}, JSONPatch{op: 'remove', path: '/spec'}]"
    await chain(*mutating(patching(text))).run_mutating(a)
    assert "spec" in a.obj and a.obj["metadata"].get("labels") == before


async def test_a_policy_that_costs_too_much_denies():
    """Told before it is done: the price of a search is the product of the lengths."""
    text = "object.metadata.annotations.big.contains(object.metadata.annotations.big)"
    a = attributes("pods", pod())
    a.obj["metadata"]["annotations"] = {"big": "x" * 100_000}
    error = await refused(chain(policy(validations=[{"expression": text}]), binding()), a)
    assert error.message.endswith("resulted in error: operation cancelled: actual cost limit exceeded")


def test_messages_ask_nobody():
    from berg.apiserver.kinds.admissionregistration.expressions import compiler, expression

    using, text = compiler(params=False), "string(authorizer.path('/x').check('get').allowed())"
    assert "undeclared reference to 'authorizer'" in str(expression(using, text, "at", "", wanted="text")[0])
    assert expression(using, text, "at", "", wanted="text_or_null") == []


async def test_a_mutating_policy_that_lacks_its_parameter():
    kind = "mutatingadmissionpolicybindings"
    mutation = {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}
    paramed = policy(
        "mutatingadmissionpolicies", mutations=[mutation], paramKind={"apiVersion": "v1", "kind": "ConfigMap"}
    )
    bound = binding(kind, paramRef={"name": "x", "parameterNotFoundAction": "Deny"})
    with pytest.raises(ApiError) as caught:
        await chain(paramed, bound).run_mutating(attributes("pods", pod()))
    assert (caught.value.code, caught.value.reason) == (403, "Forbidden")
    assert "failed to configure binding: no params found" in caught.value.message


async def test_what_may_run_again_does_so_whatever_it_changed():
    counting = '[JSONPatch{op: "add", path: "/metadata/labels", value: {"n": string(size(object.metadata.name))}}]'
    mutation = {"patchType": "JSONPatch", "jsonPatch": {"expression": counting}}
    plugins = chain(*mutating(mutation, reinvocationPolicy="IfNeeded"))
    await plugins.run_mutating(attributes("pods", pod()))
    checks = plugins.plugins[0]._checks._total
    assert checks.values["p", "b", "no_error"] == 2


async def test_spent_budgets_take_the_place_of_what_was_said_before():
    costly = [
        {"expression": f"[1,2,3].all(a, {'[1,2,3,4,5,6,7,8,9].all(b, ' * 6}true{')' * 6}) && {i} >= 0"}
        for i in range(40)
    ]
    validations = [{"expression": "false", "message": "first"}, *costly]
    error = await refused(chain(policy(validations=validations), binding()), attributes("pods", pod()))
    assert error.message.endswith("running out of cost budget, no further validation rules will be run")
