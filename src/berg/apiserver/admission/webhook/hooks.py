"""Which webhooks a request goes to.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/generic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from berg.apiserver.admission import authorizer, conditions, matching
from berg.apiserver.admission.figures import ConditionFigures
from berg.apiserver.admission.interface import Api, Attributes
from berg.apiserver.admission.refusal import forbidden
from berg.apiserver.admission.sight import Sight
from berg.machinery import status
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj


@dataclass(slots=True)
class Hook:
    configuration: str
    index: int
    body: Obj

    @property
    def name(self) -> str:
        return str(self.body["name"])

    @property
    def ignores_failure(self) -> bool:
        return self.body.get("failurePolicy") == "Ignore"

    @property
    def key(self) -> str:
        return f"{self.configuration}/{self.name}/{self.index}"


@dataclass(slots=True)
class Invocation:
    hook: Hook
    resource: Resource
    """in the version in which the webhook wants to see it"""


class CallFailed(Exception):
    """The webhook could not be asked, which its failure policy judges."""

    def __init__(self, hook: Hook, why: str, code: int = 503) -> None:
        """`code`: what metrics count it as."""
        super().__init__(f'failed calling webhook "{hook.name}": {why}')
        self.hook = hook
        self.code = code

    def error(self) -> ApiError:
        return status.internal_error(str(self))


def all_hooks(api: Api, configurations: Resource) -> Iterator[Hook]:
    """In the order of the configurations' names."""
    for configuration in sorted(api.list(configurations), key=lambda c: c["metadata"]["name"]):
        seen: dict[str, int] = {}
        for body in configuration.get("webhooks") or ():
            index = seen.get(body["name"], 0)
            seen[body["name"]] = index + 1
            yield Hook(configuration["metadata"]["name"], index, body)


async def invocation(api: Api, a: Attributes, hook: Hook, sight: Sight, figures: ConditionFigures) -> Invocation | None:
    """None when the request is none of the webhook's business. Raises ApiError."""
    body = hook.body
    found = matching.wanted(
        api,
        a,
        body.get("rules") or (),
        selectors=body,
        equivalent=body.get("matchPolicy") == "Equivalent",
    )
    if found is None:
        return None
    if body.get("matchConditions"):
        obj, old = await sight.objects(found)
        about = {"object": obj, "oldObject": old, "request": sight.request(found, ""), "namespaceObject": None}
        base = {**about, **authorizer.variables(a)}
        ask, told = authorizer.asking(api, a), figures.of(hook.name, a.operation)
        try:
            if not await conditions.hold(body["matchConditions"], base, ask, ignore=hook.ignores_failure, told=told):
                figures.excluded(hook.name, a.operation)
                return None
        except conditions.Fault as e:
            raise forbidden(a, str(e)) from None
    return Invocation(hook, found)


def check_dry_run(a: Attributes, hook: Hook) -> None:
    """A webhook with side effects is not asked about what will not be done."""
    if a.dry_run and hook.body.get("sideEffects") not in ("None", "NoneOnDryRun"):
        raise status.bad_request(f'admission webhook "{hook.name}" does not support dry run')
