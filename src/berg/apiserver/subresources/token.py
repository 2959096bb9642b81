"""A token for a service account: TokenRequest.

Source: kubernetes pkg/registry/core/serviceaccount/storage/token.go.
"""

from __future__ import annotations

from datetime import UTC, datetime

from berg.apiserver.auth.serviceaccount import ServiceAccountTokens
from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry import negotiation
from berg.apiserver.registry.registry import Registry
from berg.apiserver.subresources import reading
from berg.machinery import status
from berg.machinery.clock import rfc3339
from berg.machinery.resources import Resource, resource
from berg.machinery.status import FieldError, Obj

KIND = ("authentication.k8s.io", "v1", "TokenRequest")
MIN_S, MAX_S, DEFAULT_S = 600, 1 << 32, 3600


async def handle(request: Request, registry: Registry, resource_: Resource) -> Response:
    services = registry.services
    issuer: ServiceAccountTokens = services.tokens
    call, wanted = reading.created(request, registry, resource_, KIND)
    attributes = await reading.mutated(call, wanted, KIND)
    meta = wanted["metadata"]
    if meta.get("name") and meta["name"] != call.name:
        error = status.invalid_value("metadata.name", meta["name"], "must match the service account name if specified")
        raise status.invalid(KIND[0], KIND[2], call.name, [error])
    account = (await registry.entry(call.namespace, call.name)).obj
    uid = account["metadata"]["uid"]
    if meta.get("uid") and meta["uid"] != uid:
        raise status.conflict(
            KIND[0],
            KIND[2],
            call.name,
            f"the UID in the token request ({meta['uid']}) does not match the UID of the service account ({uid})",
        )
    now = services.clock.now()
    spec: Obj = wanted.setdefault("spec", {})
    spec["audiences"] = spec.get("audiences") or list(issuer.audiences)
    seconds = spec["expirationSeconds"] = spec.get("expirationSeconds") or DEFAULT_S
    spec.setdefault("boundObjectRef", None)
    meta.update(name=call.name, namespace=call.namespace, uid=uid, creationTimestamp=rfc3339(now))
    errors = _validate(seconds)
    if errors:
        raise status.invalid(KIND[0], KIND[2], "", errors)
    await reading.validate(call, attributes)
    longest = services.config.service_account_max_token_expiration_s
    if 0 < longest < seconds:
        call.warnings.append(f"requested expiration of {seconds} seconds shortened to {longest} seconds")
        seconds = spec["expirationSeconds"] = longest
    bound, node = await _bound(registry, call.namespace, call.name, spec["boundObjectRef"])
    token, expires, jti = issuer.issue(
        account, audiences=spec["audiences"], expiration_s=seconds, bound=bound, node=node
    )
    call.audit_annotations["authentication.kubernetes.io/issued-credential-id"] = f"JTI={jti}"
    wanted["status"] = {"token": token, "expirationTimestamp": rfc3339(datetime.fromtimestamp(expires, UTC))}
    return negotiation.respond(request, wanted, negotiation.negotiate(request), code=201)


def _validate(seconds: int) -> list[FieldError]:
    path = "spec.expirationSeconds"
    if seconds < MIN_S:
        return [status.invalid_value(path, seconds, "may not specify a duration less than 10 minutes")]
    if seconds > MAX_S:
        return [status.invalid_value(path, seconds, "may not specify a duration larger than 2^32 seconds")]
    return []


async def _bound(
    registry: Registry, namespace: str, name: str, ref: Obj | None
) -> tuple[tuple[str, Obj] | None, Obj | None]:
    """The object that the token shall die with, and the node that its pod is on."""
    if ref is None:
        return None, None
    services = registry.services
    kind = ref.get("kind", "")
    plural = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}.get(kind)
    group, _, v = (ref.get("apiVersion") or "").rpartition("/")
    if plural is None or group:
        raise status.bad_request(f"cannot bind token to object of type {group}/{v}, Kind={kind}")
    owner = services.registry(resource(plural))
    obj = (await owner.entry("" if plural == "nodes" else namespace, ref.get("name", ""))).obj
    if ref.get("uid") and ref["uid"] != obj["metadata"]["uid"]:
        raise status.conflict(
            "",
            kind,
            ref.get("name", ""),
            f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record. The object might "
            "have been deleted and then recreated",
        )
    node: Obj | None = None
    if plural == "pods":
        if obj["spec"].get("serviceAccountName") != name:
            raise status.bad_request(
                f'cannot bind token for serviceaccount "{name}" to pod running with different serviceaccount name.'
            )
        node_name = obj["spec"].get("nodeName")
        if node_name:
            found = services.get(resource("nodes"), "", node_name)
            node = {"name": node_name, "uid": found["metadata"]["uid"] if found else ""}
    return (kind.lower(), obj), node
