"""NamespaceLifecycle: nothing is created in a namespace that is not there or is going away; some never go.

Source: k8s.io/apiserver pkg/admission/plugin/namespace/lifecycle.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, DELETE, UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.machinery import status
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


class _NamespacePlugin(Plugin):
    mutating = True
    subresources = None

    def handles(self, a: Attributes) -> bool:
        return bool(a.namespace) and a.resource.group_resource != "namespaces"

    def _namespace(self, a: Attributes) -> Obj | None:
        return self.api.get(resource("namespaces"), "", a.namespace)


class NamespaceLifecycle(_NamespacePlugin):
    name = "NamespaceLifecycle"
    operations = frozenset({CREATE, UPDATE, DELETE})

    def handles(self, a: Attributes) -> bool:
        if a.resource.group_resource == "namespaces":
            return a.operation == DELETE
        return (
            bool(a.namespace)
            and a.operation != DELETE
            and a.resource.group_resource != "localsubjectaccessreviews.authorization.k8s.io"
        )

    async def admit(self, a: Attributes) -> None:
        if a.operation == DELETE:
            if a.name in IMMORTAL:
                raise forbidden(a, "this namespace may not be deleted")
            return
        namespace = self._namespace(a)
        if namespace is None:
            raise status.not_found("", "namespaces", a.namespace)
        terminating = (namespace.get("status") or {}).get("phase") == "Terminating"
        if a.operation == CREATE and (terminating or namespace["metadata"].get("deletionTimestamp")):
            raise _terminating(a)


def _terminating(a: Attributes) -> ApiError:
    error = forbidden(a, f"unable to create new content in namespace {a.namespace} because it is being terminated")
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {a.namespace} is being terminated",
        "field": "metadata.namespace",
    }
    error.details = {**(error.details or {}), "causes": [cause]}
    return error


class NamespaceExists(_NamespacePlugin):
    name = "NamespaceExists"
    operations = frozenset({CREATE, UPDATE, DELETE})

    async def admit(self, a: Attributes) -> None:
        if self._namespace(a) is None:
            raise status.not_found("", "namespaces", a.namespace)


class NamespaceAutoProvision(_NamespacePlugin):
    name = "NamespaceAutoProvision"
    operations = frozenset({CREATE})

    async def admit(self, a: Attributes) -> None:
        """Creates the namespace that is missing."""
        if a.dry_run or self._namespace(a) is not None:
            return
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": a.namespace}}
        try:
            await self.api.create(resource("namespaces"), "", namespace)
        except ApiError as e:
            if e.reason != "AlreadyExists":
                raise
