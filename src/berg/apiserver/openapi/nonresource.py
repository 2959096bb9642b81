"""What is served beside resources and told of in OpenAPI: discovery, the version, the keys of service accounts.

Each of these paths has a v3 document of its own, by its name without the last slash.

Source: k8s.io/apiserver pkg/endpoints/discovery, pkg/server/routes.
"""

from __future__ import annotations

from berg.apiserver.openapi.operations import title_and_tag
from berg.apiserver.openapi.routes import JSON, Route, Writer
from berg.machinery.status import Obj

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PLAIN = ("application/json",)
_TOP = {
    "api": ("core", "getCoreAPIVersions", f"{_META}APIVersions", JSON),
    "apis": ("apis", "getAPIVersions", f"{_META}APIGroupList", JSON),
    "version": ("version", "getCodeVersion", "io.k8s.apimachinery.pkg.version.Info", _PLAIN),
    ".well-known/openid-configuration": ("WellKnown", "getServiceAccountIssuerOpenIDConfiguration", "", _PLAIN),
    "openid/v1/jwks": ("openid", "getServiceAccountIssuerOpenIDKeyset", "", ("application/jwk-set+json",)),
}
"""name → tag, id, type of what is answered, media type"""


def names(groups: list[str]) -> list[str]:
    """Of the documents beside those of group versions."""
    return [*_TOP, *(f"apis/{group}" for group in groups if group)]


def item(name: str, writer: Writer) -> tuple[str, Obj]:
    """Path and path item, by the name of a document: of `apis/apps`, `apis/apps/v1`, …"""
    media: tuple[str, ...] = JSON
    known = _TOP.get(name)
    if known is not None:
        tag, operation, type_, media = known
    else:
        parts = name.split("/")
        if parts[0] == "api" or len(parts) == 3:
            title, tag = title_and_tag("" if parts[0] == "api" else parts[1], parts[-1])
            operation, type_ = f"get{title}APIResources", f"{_META}APIResourceList"
            media = (*JSON, "application/cbor") if writer.cbor else JSON
        else:
            title, tag = title_and_tag(parts[1])
            operation, type_ = f"get{title}APIGroup", f"{_META}APIGroup"
    shown = writer.schemas.ref(type_) if type_ else {"type": "string"}
    consumes = media if type_ else ()
    route = Route("get", tag, operation, f"get /{name}/", {"200": ("OK", shown)}, media, consumes)
    return f"/{name}/", writer.item([route])
