"""Which policies, bound by which bindings, with which parameters, a request is judged by.

Source: k8s.io/apiserver pkg/admission/plugin/policy/generic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from berg.apiserver.admission import matching, sight
from berg.apiserver.admission.interface import Api, Attributes
from berg.machinery.labels import Selector
from berg.machinery.resources import Resource
from berg.machinery.status import ApiError, Obj


@dataclass(slots=True)
class Invocation:
    policy: Obj
    binding: Obj
    param: Obj | None
    resource: Resource

    @property
    def key(self) -> tuple[str, str, str]:
        meta = (self.param or {}).get("metadata") or {}
        name = f"{meta.get('namespace') or ''}/{meta.get('name') or ''}"
        return self.policy["metadata"]["name"], self.binding["metadata"]["name"], name


@dataclass(slots=True)
class Misconfigured:
    """A policy that should have judged the request and cannot."""

    policy: Obj
    binding: Obj | None
    why: str


def fails_open(policy: Obj) -> bool:
    return policy["spec"].get("failurePolicy") == "Ignore"


def find(api: Api, a: Attributes, policies: Resource, bindings: Resource) -> Iterator[Invocation | Misconfigured]:
    stored = api.list(policies)
    if not stored:
        return
    bound: dict[str, list[Obj]] = {}
    for binding in sorted(api.list(bindings), key=lambda b: b["metadata"]["name"]):
        bound.setdefault(binding["spec"].get("policyName") or "", []).append(binding)
    for policy in sorted(stored, key=lambda p: p["metadata"]["name"]):
        own = bound.get(policy["metadata"]["name"])
        if own:
            yield from _of_policy(api, a, policy, own)


def _of_policy(api: Api, a: Attributes, policy: Obj, bindings: Sequence[Obj]) -> Iterator[Invocation | Misconfigured]:
    try:
        found = _wanted(api, a, policy["spec"].get("matchConstraints") or {}, everything=False)
    except ApiError as e:
        yield Misconfigured(policy, None, f"failed to configure policy: {e.message}")
        return
    if found is None:
        return
    kind = policy["spec"].get("paramKind")
    of_params: Resource | None = None
    if kind is not None:
        group, _, version = (kind.get("apiVersion") or "").rpartition("/")
        of_params = sight.by_kind(api, group, version, kind.get("kind") or "")
        if of_params is None:
            named = f"{kind.get('apiVersion')}, Kind={kind.get('kind')}"
            why = f"failed to find resource referenced by paramKind: '{named}'"
            yield Misconfigured(policy, None, f"failed to configure policy: {why}")
            return
    for binding in bindings:
        try:
            matches = binding["spec"].get("matchResources")
            if matches is not None and _wanted(api, a, matches, everything=True) is None:
                continue
            params = _params(api, a, of_params, binding["spec"].get("paramRef"))
        except ApiError as e:
            yield Misconfigured(policy, binding, f"failed to configure binding: {e.message}")
            continue
        except ValueError as e:
            yield Misconfigured(policy, binding, f"failed to configure binding: {e}")
            continue
        for param in params:
            yield Invocation(policy, binding, param, found)


def _wanted(api: Api, a: Attributes, constraints: Obj, *, everything: bool) -> Resource | None:
    return matching.wanted(
        api,
        a,
        constraints.get("resourceRules") or (),
        selectors=constraints,
        equivalent=constraints.get("matchPolicy", "Equivalent") == "Equivalent",
        excluded=constraints.get("excludeResourceRules") or (),
        everything=everything or not constraints.get("resourceRules"),
    )


def _params(api: Api, a: Attributes, of_params: Resource | None, ref: Obj | None) -> Sequence[Obj | None]:
    """Raises ValueError when the binding cannot be used."""
    if of_params is None or ref is None:
        return [None]
    namespace = ""
    if of_params.namespaced:
        namespace = ref.get("namespace") or a.namespace
        if not namespace:
            raise ValueError("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
    elif ref.get("namespace"):
        raise ValueError("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
    found: list[Obj] = []
    if ref.get("name"):
        param = api.get(of_params, namespace, ref["name"])
        found = [param] if param is not None else []
    elif ref.get("selector") is not None:
        selector = Selector.of(ref["selector"])
        listed = api.list(of_params, namespace or None)
        found = [o for o in listed if selector.matches(o["metadata"].get("labels") or {})]
    else:
        raise ValueError("one of name or selector must be provided")
    if not found and ref.get("parameterNotFoundAction") == "Deny":
        raise ValueError("no params found for policy binding with `Deny` parameterNotFoundAction")
    return [
        {"apiVersion": of_params.api_version, "kind": of_params.kind, **param} if "kind" not in param else param
        for param in found
    ]
