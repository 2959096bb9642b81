"""DenyServiceExternalIPs: no new externalIPs in Services.

Source: kubernetes plugin/pkg/admission/network/denyserviceexternalips.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden


class DenyServiceExternalIPs(Plugin):
    name = "DenyServiceExternalIPs"
    validating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"services"})

    async def validate(self, a: Attributes) -> None:
        new = set(((a.obj or {}).get("spec") or {}).get("externalIPs") or ())
        old = set(((a.old or {}).get("spec") or {}).get("externalIPs") or ())
        if new - old:
            raise forbidden(a, "Use of external IPs is denied by admission control")
