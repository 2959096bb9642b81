"""What a pod's status says of its resource claims, of the health of its devices, and as whom its containers run.

Source: kubernetes pkg/apis/core/validation (validatePodResourceClaimStatuses, validatePodExtendedResourceClaimStatus,
validateContainerStatusUsers, validateContainerStatusAllocatedResourcesStatus).
"""

from __future__ import annotations

from berg.apiserver.kinds import checks
from berg.machinery import names
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)

_HEALTH = ("Healthy", "Unhealthy", "Unknown")
_LONGEST_MESSAGE = 1024
_LISTS = {"containerStatuses": "containers", "initContainerStatuses": "initContainers"}


def claims(status: Obj, spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    known = {c.get("name") for c in spec.get("resourceClaims") or ()}
    seen: set[str] = set()
    for i, claim in enumerate(status.get("resourceClaimStatuses") or ()):
        at, name = f"status.resourceClaimStatuses[{i}]", claim.get("name") or ""
        if name not in known:
            why = "must match the name of an entry in `spec.resourceClaims`"
            errors.append(invalid_value(f"{at}.name", name, why))
        if name in seen:
            errors.append(duplicate(f"{at}.name", name))
        seen.add(name)
        if (own := claim.get("resourceClaimName")) is not None:
            errors += checks.named(f"{at}.resourceClaimName", own)
    extended = status.get("extendedResourceClaimStatus")
    return errors + (_extended(extended, spec) if extended is not None else [])


def _extended(claim: Obj, spec: Obj) -> list[FieldError]:
    at = "status.extendedResourceClaimStatus"
    mappings = claim.get("requestMappings") or []
    errors = [] if mappings else [required(f"{at}.requestMappings", "at least one request mapping is required")]
    containers = {c.get("name"): c for key in ("initContainers", "containers") for c in spec.get(key) or ()}
    seen: set[tuple[str, ...]] = set()
    for i, mapping in enumerate(mappings):
        path = f"{at}.requestMappings[{i}]"
        key = tuple(mapping.get(k) or "" for k in ("containerName", "resourceName", "requestName"))
        container = containers.get(key[0])
        if container is None:
            why = "must match the name of an entry in spec.initContainers.name or spec.containers.name"
            errors.append(invalid_value(f"{path}.containerName", key[0], why))
        elif key[1] not in ((container.get("resources") or {}).get("requests") or {}):
            why = (
                "must match the extended resource name of an entry in spec.initContainers.resources.requests or "
                "spec.containers.resources.requests"
            )
            errors.append(invalid_value(f"{path}.resourceName", key[1], why))
        errors += checks.named(f"{at}.requestName", key[2], names.dns1123_label)
        if key in seen:
            fields = ("containerName", "resourceName", "requestName")
            errors += [duplicate(f"{path}.{field}", value) for field, value in zip(fields, key, strict=True)]
        seen.add(key)
    return errors + checks.required_name(f"{at}.resourceClaimName", claim.get("resourceClaimName"))


def users(status: Obj, spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    system = (spec.get("os") or {}).get("name") or "linux"
    for key in (*_LISTS, "ephemeralContainerStatuses"):
        for i, container in enumerate(status.get(key) or ()):
            linux = (container.get("user") or {}).get("linux")
            at = f"status.{key}[{i}].user.linux"
            if linux is None:
                continue
            if system == "windows":
                errors.append(forbidden_field(at, "cannot be set for a windows pod"))
                continue
            ids = [(f"{at}.{name}", linux.get(name) or 0) for name in ("uid", "gid")]
            ids += [(f"{at}.supplementalGroups[{j}]", n) for j, n in enumerate(linux.get("supplementalGroups") or ())]
            for path, number in ids:
                errors += checks.between(path, number, 0, checks.MAX_INT32)
    return errors


def health(status: Obj, spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, specs in _LISTS.items():
        containers = {c.get("name"): c for c in spec.get(specs) or ()}
        for i, container in enumerate(status.get(key) or ()):
            for j, resource in enumerate(container.get("allocatedResourcesStatus") or ()):
                at = f"status.{key}[{i}].allocatedResourcesStatus[{j}]"
                errors += _allocated(resource, containers.get(container.get("name")), at)
    for i, container in enumerate(status.get("ephemeralContainerStatuses") or ()):
        if container.get("allocatedResourcesStatus"):
            path = f"status.ephemeralContainerStatuses[{i}].allocatedResourcesStatus"
            errors.append(forbidden_field(path, "must not be specified in container status"))
    return errors


def _allocated(resource: Obj, container: Obj | None, at: str) -> list[FieldError]:
    errors: list[FieldError] = []
    name = resource.get("name") or ""
    if container is not None:
        own = container.get("resources") or {}
        if name.startswith("claim:"):
            known = {"/".join(filter(None, (f"claim:{c['name']}", c.get("request")))) for c in own.get("claims") or ()}
            why = (
                "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or "
                "'claim:<claimName>' if request is empty"
            )
        else:
            known, why = set(own.get("requests") or {}), "must match one of the container's resource requests"
        if name not in known:
            errors.append(invalid_value(f"{at}.name", name, why))
    seen: set[str] = set()
    for k, device in enumerate(resource.get("resources") or ()):
        path, number = f"{at}.resources[{k}]", device.get("resourceID") or ""
        if (device.get("health") or "") not in _HEALTH:
            errors.append(not_supported(f"{path}.health", device.get("health") or "", _HEALTH))
        message = device.get("message")
        if message == "":
            errors.append(required(f"{path}.message", "must be non-empty if specified"))
        elif message and len(message.encode()) > _LONGEST_MESSAGE:
            errors.append(too_long(f"{path}.message", message, _LONGEST_MESSAGE))
        if number in seen:
            errors.append(duplicate(f"{path}.resourceID", number))
        seen.add(number)
    return errors
