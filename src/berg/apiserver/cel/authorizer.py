"""`authorizer` in expressions: may the one who asks, or a service account, do this or that.

    authorizer.group('apps').resource('deployments').namespace('ns').name('x').check('update').allowed()

Values are maps with their kind under `_`. Who is asked is in `ASKING` while an expression is evaluated.

Source: k8s.io/apiserver pkg/cel/library/authz.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

Ask = Callable[[Mapping[str, Any], str], bool]
"""(what is asked about, verb) → allowed; may raise"""

ASKING: ContextVar[Ask | None] = ContextVar("asking", default=None)


def value(**about: Any) -> dict[str, Any]:
    """The `authorizer` variable; `about`: the request's own resource, for `authorizer.requestResource`."""
    return {"_": "authorizer", "requestResource": {"_": "resourceCheck", **about}}


def _with(kind: str, key: str) -> Callable[[Any, Any], dict[str, Any]]:
    def give(x: Any, given: Any) -> dict[str, Any]:
        if not isinstance(x, dict) or "_" not in x:
            raise ValueError("no such overload")
        return {**x, "_": kind, key: given}

    return give


def _service_account(x: Any, namespace: str, name: str) -> dict[str, Any]:
    return {**x, "serviceAccount": f"{namespace}/{name}"}


def _check(x: Any, verb: str) -> dict[str, Any]:
    ask = ASKING.get()
    if ask is None or not isinstance(x, dict):
        raise ValueError("no such overload")
    try:
        return {"_": "decision", "allowed": ask(x, verb), "error": ""}
    except Exception as e:
        return {"_": "decision", "allowed": False, "error": str(e)}


def functions() -> dict[str, Callable[..., Any]]:
    return {
        "group": _with("groupCheck", "group"),
        "resource": _with("resourceCheck", "resource"),
        "subresource": _with("resourceCheck", "subresource"),
        "namespace": _with("resourceCheck", "namespace"),
        "name": _with("resourceCheck", "name"),
        "path": _with("pathCheck", "path"),
        "fieldSelector": _with("resourceCheck", "fieldSelector"),
        "labelSelector": _with("resourceCheck", "labelSelector"),
        "serviceAccount": _service_account,
        "check": _check,
        "allowed": lambda d: bool(d["allowed"]),
        "reason": lambda d: "",
        "errored": lambda d: bool(d["error"]),
        "error": lambda d: d["error"],
    }
