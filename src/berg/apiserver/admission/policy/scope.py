"""The variables of a policy's expressions.

Source: k8s.io/apiserver pkg/admission/plugin/cel/activation.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from berg.apiserver.admission import authorizer, conditions, sight
from berg.apiserver.admission.figures import ConditionFigures
from berg.apiserver.admission.interface import Attributes, Plugin
from berg.apiserver.admission.policy.invocations import Invocation, fails_open
from berg.apiserver.admission.sight import Sight


async def seen_by(plugin: Plugin, a: Attributes, invocation: Invocation, seen: Sight) -> dict[str, Any]:
    obj, old = await seen.objects(invocation.resource)
    return {
        "object": obj,
        "oldObject": old,
        "request": seen.request(invocation.resource, ""),
        "params": invocation.param,
        "namespaceObject": sight.namespace_object(plugin.api, a),
        **authorizer.variables(a),
    }


async def is_wanted(
    plugin: Plugin, a: Attributes, invocation: Invocation, base: Mapping[str, Any], figures: ConditionFigures
) -> bool:
    """Whether the policy's match conditions hold. Raises Fault."""
    policy = invocation.policy
    told = figures.of(policy["metadata"]["name"], a.operation)
    wanted, ask = policy["spec"].get("matchConditions") or (), authorizer.asking(plugin.api, a)
    return await conditions.hold(wanted, base, ask, ignore=fails_open(policy), told=told)
