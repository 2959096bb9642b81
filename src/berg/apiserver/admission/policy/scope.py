"""The variables of a policy's expressions.

Source: k8s.io/apiserver pkg/admission/plugin/cel/activation.go.
"""

from __future__ import annotations

from berg.apiserver.admission import authorizer, sight
from berg.apiserver.admission.conditions import Scope
from berg.apiserver.admission.interface import Api, Attributes
from berg.apiserver.admission.policy.invocations import Invocation
from berg.apiserver.admission.sight import Sight


async def scope_of(api: Api, a: Attributes, invocation: Invocation, seen: Sight) -> Scope:
    obj, old = await seen.objects(invocation.resource)
    request = seen.request(invocation.resource, "")
    base = {
        "object": obj,
        "oldObject": old,
        "request": request,
        "params": invocation.param,
        "namespaceObject": sight.namespace_object(api, a),
        **authorizer.variables(a),
    }
    return Scope(base, invocation.policy["spec"].get("variables") or (), authorizer.asking(api, a))
