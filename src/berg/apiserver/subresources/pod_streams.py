"""exec, attach, port-forward: the client's upgraded connection joined to the kubelet's.

WebSocket and SPDY both pass as they are: the kubelet speaks both.

Source: kubernetes pkg/registry/core/pod/rest/subresources.go.
"""

from __future__ import annotations

from urllib.parse import urlencode

from berg.apiserver.auth import authorization
from berg.apiserver.auth.authorization import AuthzAttributes
from berg.apiserver.http.forward import Unreachable, forward
from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry.registry import Registry
from berg.apiserver.requestinfo import RequestInfo, is_true
from berg.apiserver.subresources import kubelet, reading
from berg.apiserver.subresources.containers import choose
from berg.machinery import status
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

_STREAMS = (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))
_KINDS = {"exec": "PodExecOptions", "attach": "PodAttachOptions", "portforward": "PodPortForwardOptions"}


async def handle(request: Request, registry: Registry, resource: Resource) -> Response:
    info: RequestInfo = request.info
    what = info.subresource
    if request.method not in ("GET", "POST"):
        raise status.method_not_supported("", f"pods/{what}", info.verb)
    pod = (await registry.entry(info.namespace, info.name)).obj
    await reading.admit_connect(request, registry, resource, _KINDS[what], _options(request))
    if request.method == "GET":  # a WebSocket's GET does what a POST does, and needs the same right
        user = request.user
        assert user is not None
        asked = AuthzAttributes(user, "create", "", "v1", "pods", what, info.namespace, info.name)
        if not await registry.services.authorize(user, "create", resource, info.namespace, info.name, what):
            raise authorization.forbidden(asked)
    node = pod["spec"].get("nodeName")
    if what != "portforward":
        container = choose(pod, request.arg("container"))
    if not node:
        raise status.bad_request(f"pod {info.name} does not have a host assigned")
    if what != "portforward" and not any(is_true(request.query.get(s)) for s, _ in _STREAMS[:3]):
        raise status.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    if what == "portforward":
        path = f"/portForward/{info.namespace}/{info.name}"
        query = [("port", p) for p in request.query.get("ports", ())]
    else:
        path = f"/{what}/{info.namespace}/{info.name}/{container}"
        query = [(theirs, "1") for ours, theirs in _STREAMS if is_true(request.query.get(ours))]
        query += [("command", c) for c in request.query.get("command", ())]
    if "upgrade" not in request.headers:
        raise status.bad_request("Upgrade request required")
    target = kubelet.target(registry.services, node, path, urlencode(query))
    try:
        return await forward(request, target)
    except Unreachable as e:
        raise status.internal_error(f"error dialing backend: {e}") from None


def _options(request: Request) -> Obj:
    options: Obj = {}
    for name, values in request.query.items():
        if name in ("command",):
            options[name] = values
        elif name in ("stdin", "stdout", "stderr", "tty"):
            options[name] = is_true(values)
        elif name == "container":
            options[name] = values[0]
        elif name == "ports":
            options[name] = [int(v) for v in values if v.isdigit()]
    return options
