"""One operation on one resource: who asks for what, with which options. Made per request, passed down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from berg.apiserver.http.message import User
from berg.apiserver.registry.strategy import Context
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.apiserver.registry.registry import Registry


@dataclass(slots=True)
class Call:
    registry: Registry
    resource: Resource
    """in the version that is asked for"""
    namespace: str
    name: str
    user: User
    context: Context
    subresource: str = ""
    options: Obj = field(default_factory=dict)
    field_manager: str = ""
    admission: bool = True
    """False for what the server itself writes"""
    audit_annotations: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    """the request's"""

    @property
    def dry_run(self) -> bool:
        return self.context.dry_run

    @property
    def requested(self) -> Resource | None:
        """For admission: the resource as it was asked for, where that is not how it is stored."""
        stored = self.registry.storage
        return self.resource if self.resource.api_version != stored.api_version else None

    def options_as(self, kind: str) -> Obj:
        """For admission: a patch is asked about as the update or creation that it comes to."""
        if self.options.get("kind") in (kind, None):
            return self.options
        return {k: v for k, v in self.options.items() if k != "force"} | {"kind": kind}

    @property
    def warnings(self) -> list[str]:
        return self.context.warnings
