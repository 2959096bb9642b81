"""ClusterTrustBundles and PodCertificateRequests.

Source: KEP-3257, KEP-4317; kubernetes pkg/printers.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj


@strategy_for("certificates.k8s.io", "clustertrustbundles")
class ClusterTrustBundleStrategy(Strategy):
    namespaced = False
    has_status = False
    generation = False
    allow_unconditional_update = False
    field_labels = ("spec.signerName",)
    columns = [cells.NAME, Column("SignerName", lambda o: (o.get("spec") or {}).get("signerName") or "<none>")]

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        """The rest depends on the signer, see `validate`."""
        return names.path_segment(name)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.certificates.trust_validation import validate_bundle

        return validate_bundle(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.certificates.trust_validation import validate_bundle

        return validate_bundle(obj, old)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"spec.signerName": (obj.get("spec") or {}).get("signerName") or ""}


def _state(obj: Obj) -> str:
    for c in reversed((obj.get("status") or {}).get("conditions") or ()):
        if c.get("type") in ("Issued", "Denied", "Failed"):
            return str(c["type"])
    return "Pending"


@strategy_for("certificates.k8s.io", "podcertificaterequests")
class PodCertificateRequestStrategy(Strategy):
    status_metadata = ()
    generation = False
    allow_unconditional_update = False
    field_labels = ("spec.signerName", "spec.podName", "spec.nodeName")
    columns = [
        cells.NAME,
        Column("PodName", cells.at("spec.podName")),
        Column("ServiceAccountName", cells.at("spec.serviceAccountName")),
        Column("NodeName", cells.at("spec.nodeName")),
        Column("SignerName", cells.at("spec.signerName")),
        Column("State", _state),
        Column("UnverifiedUserAnnotations", lambda o: cells.labels(cells.at("spec.unverifiedUserAnnotations", {})(o))),
    ]

    def default(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec is not None and spec.get("maxExpirationSeconds") is None:
            spec["maxExpirationSeconds"] = 24 * 3600

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.certificates.pod_certificate import validate_request

        return validate_request(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.certificates.pod_certificate import validate_request_update

        return validate_request_update(obj, old)

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.certificates.pod_certificate import validate_request_status

        return validate_request_status(obj, old, ctx.clock)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        spec = obj.get("spec") or {}
        return {f"spec.{k}": spec.get(k) or "" for k in ("signerName", "podName", "nodeName")}
