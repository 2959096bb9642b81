"""Subresources that do something else than read or write (a part of) their object.

`ROOMS` says which module answers which; each has one coroutine `handle(request, registry, resource)`.
"""

ROOMS: dict[tuple[str, str, str], str] = {
    ("", "pods", "binding"): "binding",
    ("", "pods", "eviction"): "eviction",
    ("", "serviceaccounts", "token"): "token",
    ("", "pods", "log"): "pod_log",
    ("", "pods", "exec"): "pod_streams",
    ("", "pods", "attach"): "pod_streams",
    ("", "pods", "portforward"): "pod_streams",
    ("", "pods", "proxy"): "proxy",
    ("", "services", "proxy"): "proxy",
    ("", "nodes", "proxy"): "proxy",
}
