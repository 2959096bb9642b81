"""Pods.

Source: kubernetes pkg/registry/core/pod/strategy.go, pkg/apis/core/validation ValidatePodCreate/ValidatePodUpdate.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import gated
from berg.apiserver.kinds.core import pod_columns
from berg.apiserver.kinds.core.pod_spec.defaults import pod_defaults
from berg.apiserver.kinds.core.pod_spec.label_keys import merge_label_keys
from berg.apiserver.kinds.core.pod_spec.resources import qos_class
from berg.apiserver.registry.strategy import Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.clock import rfc3339
from berg.machinery.status import FieldError, Obj

_VOLUME_STATUSES = tuple(
    f"{key}.*.volumeMounts.*.volumeStatus"
    for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
)


@strategy_for("", "pods")
class PodStrategy(Strategy):
    graceful = True
    status_metadata = ("annotations", "labels", "finalizers")
    columns = pod_columns.COLUMNS
    field_labels = (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "spec.host",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    )

    def default(self, obj: Obj) -> None:
        if not isinstance(obj.get("spec"), dict):
            obj["spec"] = {}
        pod_defaults(obj)
        status = obj.get("status")
        if status and (ip := status.get("podIP")):
            if (status.get("podIPs") or [{}])[0].get("ip") != ip:
                status["podIPs"] = [{"ip": ip}]
        elif status and (ips := status.get("podIPs")) and ips[0].get("ip"):
            status["podIP"] = ips[0]["ip"]

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        status: Obj = {"phase": "Pending"}
        if obj["spec"].get("schedulingGates"):
            status["conditions"] = [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "lastProbeTime": None,
                    "lastTransitionTime": rfc3339(ctx.clock.now()),
                    "reason": "SchedulingGated",
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                }
            ]
        status["qosClass"] = qos_class(obj)
        obj["status"] = status
        merge_label_keys(obj)
        if annotations := obj["metadata"].get("annotations"):
            from berg.apiserver.kinds.core.pod_spec.app_armor import profiles_from_annotations

            ctx.warnings.extend(profiles_from_annotations(obj["spec"], annotations))

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.pod_spec.validation import validate_pod_create

        return validate_pod_create(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.pod_spec import update

        if ctx.subresource == "binding":  # checked by who binds; it sets what nobody else may
            return []
        if ctx.subresource == "resize":
            from berg.apiserver.kinds.core.pod_spec.resize import validate_resize

            return validate_resize(obj, old)
        if ctx.subresource == "ephemeralcontainers":
            return update.validate_ephemeral_containers_update(obj, old)
        return update.validate_pod_update(obj, old)

    def prepare_for_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        if ctx.subresource == "ephemeralcontainers":
            from berg.apiserver.kinds.core.pod_spec.update import keep_all_but_ephemeral_containers

            keep_all_but_ephemeral_containers(obj, old)
        elif ctx.subresource == "resize":
            from berg.apiserver.kinds.core.pod_spec.resize import keep_all_but_resources

            keep_all_but_resources(obj, old)

    def prepare_status_update(self, ctx: Context, obj: Obj, old: Obj) -> None:
        status, before = obj.setdefault("status", {}), old.get("status") or {}
        if not status.get("qosClass") and before.get("qosClass"):
            status["qosClass"] = before["qosClass"]
        if not status.get("observedGeneration") and before.get("observedGeneration"):
            status["observedGeneration"] = before["observedGeneration"]
        gated.drop_disabled(ctx, "DRANodeAllocatableResources", status, before, "nodeAllocatableResourceClaimStatuses")
        gated.drop_disabled(ctx, "ImageVolumeWithDigest", status, before, *_VOLUME_STATUSES)
        seen: dict[str, list[int]] = {}
        for c in before.get("conditions") or ():
            seen.setdefault(c.get("type", ""), []).append(c.get("observedGeneration") or 0)
        for c in status.get("conditions") or ():
            generations = seen.get(c.get("type", ""))
            generation = generations.pop(0) if generations else 0
            if not c.get("observedGeneration") and generation:
                c["observedGeneration"] = generation

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.core.pod_spec.status import validate_pod_status_update

        return validate_pod_status_update(obj, old)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        if old is not None:
            return ()
        from berg.apiserver.kinds.core.pod_spec.warnings import pod_warnings

        found: list[str] = []
        if faults := names.dns1123_label(obj["metadata"].get("name") or ""):
            found.append(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; "
                f"a DNS label is recommended: [{' '.join(faults)}]"
            )
        return found + pod_warnings(obj)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        ips = status.get("podIPs")
        node = spec.get("nodeName") or ""
        return {
            "spec.nodeName": node,
            "spec.host": node,
            "spec.restartPolicy": spec.get("restartPolicy") or "",
            "spec.schedulerName": spec.get("schedulerName") or "",
            "spec.serviceAccountName": spec.get("serviceAccountName") or "",
            "spec.hostNetwork": "true" if spec.get("hostNetwork") else "false",
            "status.phase": status.get("phase") or "",
            "status.podIP": (ips[0].get("ip") if ips else status.get("podIP")) or "",
            "status.nominatedNodeName": status.get("nominatedNodeName") or "",
        }

    def row_conditions(self, obj: Obj) -> list[Obj]:
        return pod_columns.row_conditions(obj)

    def grace_period_s(self, ctx: Context, obj: Obj, requested_s: int | None) -> int:
        spec = obj.get("spec") or {}
        if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
            return 0
        period = requested_s if requested_s is not None else spec.get("terminationGracePeriodSeconds") or 0
        return 1 if period < 0 else int(period)
