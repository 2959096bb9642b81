"""Source of the cases: k8s.io/apiserver pkg/endpoints/request/requestinfo_test.go (facts, not code)."""

from __future__ import annotations

import pytest

from berg.apiserver.http.message import Request
from berg.apiserver.requestinfo import resolve


@pytest.mark.parametrize(
    ("method", "path", "verb", "group", "version", "namespace", "resource", "subresource", "name"),
    [
        ("GET", "/api/v1/namespaces", "list", "", "v1", "", "namespaces", "", ""),
        ("GET", "/api/v1/namespaces/other", "get", "", "v1", "other", "namespaces", "", "other"),
        ("GET", "/api/v1/namespaces/other/pods", "list", "", "v1", "other", "pods", "", ""),
        ("GET", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
        ("HEAD", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
        ("GET", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=true", "watch", "", "v1", "", "pods", "", ""),
        ("GET", "/api/v1/pods?watch=false", "list", "", "v1", "", "pods", "", ""),
        ("GET", "/api/v1/watch/namespaces/other/pods", "watch", "", "v1", "other", "pods", "", ""),
        ("GET", "/api/v1/namespaces/other/pods/foo/status", "get", "", "v1", "other", "pods", "status", "foo"),
        ("PUT", "/api/v1/namespaces/other/finalize", "update", "", "v1", "other", "namespaces", "finalize", "other"),
        ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection", "", "v1", "other", "pods", "", ""),
        ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete", "", "v1", "other", "pods", "", "foo"),
        ("PATCH", "/apis/apps/v1/namespaces/x/deployments/d", "patch", "apps", "v1", "x", "deployments", "", "d"),
        ("GET", "/api/v1/nodes/n/proxy/a/b", "get", "", "v1", "", "nodes", "proxy", "n"),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dfoo", "list", "", "v1", "", "pods", "", "foo"),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Dfoo", "list", "", "v1", "", "pods", "", ""),
    ],
)
def test_resources(
    method: str,
    path: str,
    verb: str,
    group: str,
    version: str,
    namespace: str,
    resource: str,
    subresource: str,
    name: str,
) -> None:
    path, _, query = path.partition("?")
    info = resolve(Request(method, path, query))
    assert info.is_resource
    found = (info.verb, info.api_group, info.api_version, info.namespace, info.resource, info.subresource, info.name)
    assert found == (verb, group, version, namespace, resource, subresource, name)


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/healthz", "/version"])
def test_other_paths(path: str) -> None:
    info = resolve(Request("GET", path))
    assert not info.is_resource
    assert (info.verb, info.path) == ("get", path)
