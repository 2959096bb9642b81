"""CertificateSigningRequests: who asks is written by the server; approval and signing have endpoints of their own.

Source: kubernetes pkg/registry/certificates/certificates/strategy.go, pkg/apis/certificates/validation.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import timedelta

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.clock import rfc3339
from berg.machinery.status import FieldError, Obj


def _state(obj: Obj) -> str:
    status = obj.get("status") or {}
    kinds = {c.get("type") for c in status.get("conditions") or ()}
    state = "Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"
    if "Failed" in kinds:
        state += ",Failed"
    return f"{state},Issued" if status.get("certificate") else state


def _duration(obj: Obj) -> str:
    seconds = (obj.get("spec") or {}).get("expirationSeconds")
    return "<none>" if seconds is None else cells.human_duration(timedelta(seconds=seconds))


@strategy_for("certificates.k8s.io", "certificatesigningrequests")
class CertificateSigningRequestStrategy(Strategy):
    namespaced = False
    generation = False
    field_labels = ("spec.signerName",)
    unowned = (("spec",),)
    columns = [
        cells.NAME,
        cells.AGE,
        Column("SignerName", lambda o: (o.get("spec") or {}).get("signerName") or "<none>"),
        Column("Requestor", cells.at("spec.username")),
        Column("RequestedDuration", _duration),
        Column("Condition", _state),
    ]

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        for key in ("username", "uid", "groups", "extra"):
            spec.pop(key, None)
        if ctx.user is not None:
            who = {
                "username": ctx.user.name,
                "uid": ctx.user.uid,
                "groups": list(ctx.user.groups),
                "extra": dict(ctx.user.extra),
            }
            spec.update({k: v for k, v in who.items() if v})
        obj["status"] = {}

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        """The request itself never changes; /approval writes the conditions and nothing else."""
        conditions = (obj.get("status") or {}).get("conditions") or []
        obj["spec"] = copy.deepcopy(old.get("spec") or {})
        obj["status"] = copy.deepcopy(old.get("status") or {})
        if ctx.subresource == "approval":
            obj["status"]["conditions"] = conditions
            self._stamp(ctx, obj, old)

    def prepare_status_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        """Approved and Denied are /approval's alone."""
        status = obj.setdefault("status", {})
        kept = [c for c in status.get("conditions") or () if c.get("type") not in ("Approved", "Denied")]
        before = [
            c for c in (old.get("status") or {}).get("conditions") or () if c.get("type") in ("Approved", "Denied")
        ]
        if kept or before:
            status["conditions"] = copy.deepcopy(before) + kept
        self._stamp(ctx, obj, old)

    def _stamp(self, ctx: Context, obj: Obj, old: Obj) -> None:
        now = rfc3339(ctx.clock.now())
        before = {c.get("type"): c for c in (old.get("status") or {}).get("conditions") or ()}
        for c in (obj.get("status") or {}).get("conditions") or ():
            known = before.get(c.get("type"))
            if not c.get("lastUpdateTime"):
                c["lastUpdateTime"] = now
            if not c.get("lastTransitionTime"):
                same = known is not None and known.get("status") == c.get("status")
                c["lastTransitionTime"] = (known or {}).get("lastTransitionTime") if same else now

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        """Anything that fits into a path."""
        return names.path_segment(name)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.certificates.validation import validate_request

        return validate_request(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.certificates.validation import validate_conditions_of_request

        return validate_conditions_of_request(obj, old, approving=ctx.subresource == "approval")

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.certificates.validation import validate_request_status

        return validate_request_status(obj, old)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"spec.signerName": (obj.get("spec") or {}).get("signerName") or ""}
