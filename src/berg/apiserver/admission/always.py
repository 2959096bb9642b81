"""AlwaysAdmit and AlwaysDeny: for trying things out."""

from __future__ import annotations

from berg.apiserver.admission.interface import Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden


class AlwaysAdmit(Plugin):
    name = "AlwaysAdmit"


class AlwaysDeny(Plugin):
    name = "AlwaysDeny"
    mutating = True
    validating = True
    subresources = None

    async def admit(self, a: Attributes) -> None:
        raise forbidden(a, "admission control is denying all modifications")

    async def validate(self, a: Attributes) -> None:
        raise forbidden(a, "admission control is denying all modifications")
