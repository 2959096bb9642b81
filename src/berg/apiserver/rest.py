"""From a resource request to the verb that answers it: which registry, which subresource, which method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import import_module

from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry import verbs
from berg.apiserver.registry.registry import Registry
from berg.apiserver.registry.services import Services
from berg.apiserver.registry.views import view_of
from berg.apiserver.requestinfo import RequestInfo
from berg.machinery import status
from berg.machinery.quoting import quote
from berg.machinery.resources import Resource, builtin
from berg.machinery.status import ApiError

_LIVES: dict[str, tuple[tuple[str, str, int, str], ...]] = {
    "v1": (("componentstatuses", "ComponentStatus", 19, ""),),
    "admissionregistration.k8s.io/v1beta1": (
        ("mutatingadmissionpolicies", "MutatingAdmissionPolicy", 37, "admissionregistration.k8s.io/v1"),
        ("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", 37, "admissionregistration.k8s.io/v1"),
    ),
    "admissionregistration.k8s.io/v1alpha1": (
        ("mutatingadmissionpolicies", "MutatingAdmissionPolicy", 35, ""),
        ("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", 35, ""),
    ),
    "certificates.k8s.io/v1beta1": (
        ("clustertrustbundles", "ClusterTrustBundle", 37, ""),
        ("podcertificaterequests", "PodCertificateRequest", 38, ""),
    ),
    "coordination.k8s.io/v1beta1": (("leasecandidates", "LeaseCandidate", 36, ""),),
    "coordination.k8s.io/v1alpha2": (("leasecandidates", "LeaseCandidate", 35, ""),),
    "resource.k8s.io/v1beta2": (
        ("deviceclasses", "DeviceClass", 36, ""),
        ("devicetaintrules", "DeviceTaintRule", 39, ""),
        ("resourceclaims", "ResourceClaim", 36, ""),
        ("resourceclaimtemplates", "ResourceClaimTemplate", 36, ""),
        ("resourceslices", "ResourceSlice", 36, ""),
    ),
    "resource.k8s.io/v1beta1": (
        ("deviceclasses", "DeviceClass", 35, ""),
        ("resourceclaims", "ResourceClaim", 35, ""),
        ("resourceclaimtemplates", "ResourceClaimTemplate", 35, ""),
        ("resourceslices", "ResourceSlice", 35, ""),
    ),
    "resource.k8s.io/v1alpha3": (
        ("devicetaintrules", "DeviceTaintRule", 36, ""),
        ("resourcepoolstatusrequests", "ResourcePoolStatusRequest", 39, ""),
    ),
    "storagemigration.k8s.io/v1beta1": (("storageversionmigrations", "StorageVersionMigration", 38, ""),),
}
"""group version → plural, kind, the minor release since which it is deprecated (three later it may be gone), and the
group version to use instead"""


def _deprecations() -> dict[tuple[str, str, str], str]:
    found = {
        ("", "v1", "endpoints"): "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    }
    for api_version, kinds in _LIVES.items():
        group, _, version = api_version.rpartition("/")
        for plural, kind, since, instead in kinds:
            text = f"{api_version} {kind} is deprecated in v1.{since}+"
            if group:
                text += f", unavailable in v1.{since + 3}+"
            found[group, version, plural] = f"{text}; use {instead} {kind}" if instead else text
    return found


SubHandler = Callable[[Request, Registry, Resource], Awaitable[Response]]
ActionHandler = Callable[[Request, Resource], Awaitable[Response]]


class NotServed(Exception):
    """No such path here; somebody else (an aggregated API) may know it."""


class Resources:
    """All that is served under `/api/v1` and `/apis/GROUP/VERSION`."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.table: dict[tuple[str, str, str], Resource] = {}
        self.deprecations = _deprecations()
        """(group, version, plural) → what clients are warned of, whatever they ask"""
        self.deprecated: set[tuple[str, str, str]] = set()
        """what has been asked for although it is deprecated"""
        self.rooms: dict[tuple[str, str, str], str] = {}
        """(group, plural, subresource) → module in `subresources/`, for those that are no view of their object"""
        self.actions: dict[tuple[str, str], ActionHandler] = {}
        """(group, plural) → handler, for resources that are never stored (reviews)"""

    def find(self, info: RequestInfo) -> Resource | None:
        return self.table.get((info.api_group, info.api_version, info.resource))

    async def handle(self, request: Request) -> Response:
        """Raises NotServed, ApiError."""
        info: RequestInfo = request.info
        resource = self.table.get((info.api_group, info.api_version, info.resource))
        if resource is None:
            raise NotServed
        if resource.namespaced:
            if not info.namespace and (info.name and len(info.parts) > 1):
                raise NotServed
        elif info.namespace and (info.resource != "namespaces" or info.namespace != info.name):
            raise NotServed
        count = len(info.parts)
        if count > 3 and info.subresource != "proxy" and not _is_custom(resource):
            raise NotServed
        action = self.actions.get((resource.group, resource.plural))
        if action is not None and resource.namespaced and not info.namespace:
            raise NotServed
        if action is not None and info.name and "get" not in resource.verbs:
            raise NotServed
        if action is not None and (info.verb not in resource.verbs or request.method == "HEAD"):
            raise not_allowed(resource, info)
        deprecated = self.deprecations.get((resource.group, resource.version, resource.plural))
        if deprecated is not None:
            self.deprecated.add((resource.group, resource.version, resource.plural))
            request.attributes.setdefault("warnings", []).append(deprecated)
        if action is not None:
            return await action(request, resource)
        registry = self.services.registries[resource.group, resource.plural]
        if info.verb == "proxy":  # a prefix of long ago
            raise NotServed
        if info.subresource:
            return await self._subresource(request, info, registry, resource)
        if (info.verb == "watch" and request.method != "GET") or request.method == "HEAD":
            raise not_allowed(resource, info)
        return await _main(request, info, registry, resource)

    async def _subresource(
        self, request: Request, info: RequestInfo, registry: Registry, resource: Resource
    ) -> Response:
        room = self.rooms.get((resource.group, resource.plural, info.subresource))
        if room is not None:
            declared = resource.subresources.get(info.subresource)
            if declared is None:
                raise NotServed
            proxied = info.subresource == "proxy"
            passed_on = proxied and request.method == "OPTIONS"  # which is no verb
            headed = request.method == "HEAD" and not proxied
            if headed or (info.verb not in declared.verbs and not passed_on):  # what was authorized is what is done
                raise not_allowed(resource, info)
            handler: SubHandler = import_module(f"berg.apiserver.subresources.{room}").handle
            return await handler(request, registry, resource)
        view = view_of(registry, resource, info.subresource)
        if view is None or info.verb == "watch" or len(info.parts) > 3:
            raise _no_subresource(resource, info)
        sub = resource.subresources.get(info.subresource)
        if sub is None or info.verb not in sub.verbs or request.method == "HEAD":
            raise not_allowed(resource, info)
        match info.verb:
            case "get":
                return await verbs.get(request, registry, resource, view)
            case "update":
                return await verbs.update(request, registry, resource, view)
            case _:
                return await verbs.patch(request, registry, resource, view)


def ours(path: str) -> bool:
    """Whether our own router has that path: what is below the core group or another built-in one."""
    parts = path.split("/", 3)
    if len(parts) < 2:
        return False
    return parts[1] in ("api", "version") or (len(parts) > 2 and parts[1] == "apis" and parts[2] in builtin().groups)


def _no_subresource(resource: Resource, info: RequestInfo) -> Exception:
    if builtin().get(resource.group, resource.version, resource.plural) is not None:
        return NotServed()
    return status.not_found(resource.group, resource.plural, info.name)


async def _main(request: Request, info: RequestInfo, registry: Registry, resource: Resource) -> Response:
    verb = info.verb
    if len(info.parts) > 3:
        raise NotServed
    if "%" in info.name or (info.name in (".", "..") and len(info.parts) > 1):
        _check_segment(info.name, verb)
    if verb == "get":
        return await verbs.get(request, registry, resource)
    if verb in ("list", "watch"):
        return await verbs.list_(request, registry, resource)
    if verb not in resource.verbs:
        raise not_allowed(resource, info)
    if verb == "create":
        if len(info.parts) > 1 or (resource.namespaced and not info.namespace):
            raise not_allowed(resource, info)
        return await verbs.create(request, registry, resource)
    if verb == "deletecollection":
        if resource.namespaced and not info.namespace:
            raise not_allowed(resource, info)
        return await verbs.delete_collection(request, registry, resource)
    if len(info.parts) < 2:
        raise not_allowed(resource, info)
    if verb == "update":
        return await verbs.update(request, registry, resource)
    if verb == "patch":
        return await verbs.patch(request, registry, resource)
    return await verbs.delete(request, registry, resource)


def _check_segment(name: str, verb: str) -> None:
    """What no object can be called, since it would be another path. Raises BadRequest."""
    if verb in ("get", "patch", "delete"):
        if name in (".", ".."):
            raise status.bad_request(f"Name parameter invalid: {quote(name)}: may not be '{name}'")
        if "%" in name:
            raise status.bad_request(f"Name parameter invalid: {quote(name)}: may not contain '%'")


def _is_custom(resource: Resource) -> bool:
    return builtin().get(resource.group, resource.version, resource.plural) is None


def not_allowed(resource: Resource, info: RequestInfo) -> ApiError:
    """A path that exists with other methods. Custom resources have no router of their own, and say it in their
    words; what hangs at no object has no other methods there."""
    if not _is_custom(resource):
        return status.no_such_method()
    if len(info.parts) < 2 and resource.namespaced and not info.namespace:
        raise NotServed
    return status.method_not_supported(resource.group, resource.plural, info.verb)
