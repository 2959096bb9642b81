"""`authorizer` in expressions: may the one who asks, or a service account, do this or that.

    authorizer.group('apps').resource('deployments').namespace('ns').name('x').check('update').allowed()

What is asked about is gathered step by step; who answers is the evaluation's own `ask`.

Source: k8s.io/apiserver pkg/cel/library/authz.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from berg.machinery.cel.library import on
from berg.machinery.cel.values import EvaluationError, Named

Ask = Callable[[Mapping[str, Any], str], tuple[bool, str]]
"""(what is asked about, verb) → allowed, why; may raise"""

_PREFIX = "kubernetes.authorization."
AUTHORIZER, RESOURCE, DECISION = f"{_PREFIX}Authorizer", f"{_PREFIX}ResourceCheck", f"{_PREFIX}Decision"
_PATH, _GROUP = f"{_PREFIX}PathCheck", f"{_PREFIX}GroupCheck"


def values(**about: Any) -> dict[str, Named]:
    """The variables; `about`: the request's own resource."""
    return {"authorizer": Named(AUTHORIZER, {}), "authorizer.requestResource": Named(RESOURCE, about)}


def _step(of: str, to: str, key: str) -> Callable[[Named, str], Named]:
    @on(key, of, "string")
    def give(x: Named, given: str) -> Named:
        return Named(to, {**x.value, key: given})

    return give


_step(AUTHORIZER, _GROUP, "group")
_step(AUTHORIZER, _PATH, "path")
_step(_GROUP, RESOURCE, "resource")
for _key in ("subresource", "namespace", "name", "fieldSelector", "labelSelector"):
    _step(RESOURCE, RESOURCE, _key)


@on("serviceAccount", AUTHORIZER, "string", "string")
def service_account(x: Named, namespace: str, name: str) -> Named:
    from berg.machinery import names

    for fault in (*names.dns1123_label(namespace), *names.dns1123_subdomain(name)):
        raise EvaluationError(f"invalid service account: {fault}")
    return Named(AUTHORIZER, {**x.value, "serviceAccount": f"{namespace}/{name}"})


def _check(x: Named, verb: str, ask: Ask | None) -> Named:
    if ask is None:
        raise EvaluationError("no such overload")
    try:
        allowed, why = ask(x.value, verb)
        return Named(DECISION, {"allowed": allowed, "reason": why, "error": ""})
    except Exception as e:
        return Named(DECISION, {"allowed": False, "reason": "", "error": str(e)})


on("check", _PATH, "string", "any")(_check)
on("check", RESOURCE, "string", "any")(_check)
on("allowed", DECISION)(lambda d: d.value["allowed"])
on("errored", DECISION)(lambda d: bool(d.value["error"]))
on("error", DECISION)(lambda d: d.value["error"])
on("reason", DECISION)(lambda d: d.value["reason"])
