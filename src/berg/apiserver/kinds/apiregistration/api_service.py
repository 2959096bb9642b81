"""APIServices.

Source: kube-aggregator pkg/apis/apiregistration/validation, pkg/registry/apiservice/strategy.go.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.clock import rfc3339
from berg.machinery.status import FieldError, Obj, invalid_value, required


def _service(obj: Obj) -> str:
    service = (obj.get("spec") or {}).get("service")
    return f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"


def _available(obj: Obj) -> str:
    found = cells.condition(obj, "Available")
    if found is None:
        return "Unknown"
    status = str(found.get("status"))
    return status if status == "True" else f"{status} ({found.get('reason', '')})"


@strategy_for("apiregistration.k8s.io", "apiservices")
class APIServiceStrategy(Strategy):
    namespaced = False
    generation = False
    allow_unconditional_update = False
    columns = [cells.NAME, Column("Service", _service), Column("Available", _available), cells.AGE]

    def default(self, obj: Obj) -> None:
        service = (obj.get("spec") or {}).get("service")
        if service and service.get("port") is None:
            service["port"] = 443

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}
        if not (obj.get("spec") or {}).get("service"):
            local = {"status": "True", "reason": "Local", "message": "Local APIServices are always available"}
            obj["status"]["conditions"] = [
                {"type": "Available", **local, "lastTransitionTime": rfc3339(ctx.clock.now())}
            ]

    def validate_name(self, name: str, *, prefix: bool) -> list[str]:
        return names.path_segment(name)  # the core group's is called "v1."

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        spec = obj.get("spec") or {}
        group, version = spec.get("group") or "", spec.get("version") or ""
        errors: list[FieldError] = []
        wanted, name = f"{version}.{group}", obj["metadata"].get("name") or ""
        if name and name != wanted:
            errors.append(invalid_value("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{wanted}"'))
        if not group:
            if version != "v1":
                errors.append(required("spec.group", "only v1 may have an empty group and it better be legacy kube"))
        else:
            errors += [invalid_value("spec.group", group, t) for t in names.dns1123_subdomain(group)]
        errors += [invalid_value("spec.version", version, t) for t in names.dns1035_label(version)]
        low, high = spec.get("groupPriorityMinimum") or 0, spec.get("versionPriority") or 0
        if not 0 < low <= 20000:
            errors.append(invalid_value("spec.groupPriorityMinimum", low, "must be positive and less than 20000"))
        if not 0 < high <= 1000:
            errors.append(invalid_value("spec.versionPriority", high, "must be positive and less than 1000"))
        service = spec.get("service")
        if service is None:
            if spec.get("caBundle"):
                errors.append(invalid_value("spec.caBundle", "<binary>", "local APIServices may not have a caBundle"))
            if spec.get("insecureSkipTLSVerify"):
                errors.append(
                    invalid_value(
                        "spec.insecureSkipTLSVerify", True, "local APIServices may not have insecureSkipTLSVerify"
                    )
                )
            return errors
        for key in ("namespace", "name"):
            if not service.get(key):
                errors.append(required(f"spec.service.{key}"))
        port = service.get("port")
        if port is not None and not 0 < port < 65536:
            errors.append(
                invalid_value("spec.service.port", port, f"port is not valid: {', '.join(names.port_number(port))}")
            )
        if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
            why = "may not be true if caBundle is present"
            errors.append(invalid_value("spec.insecureSkipTLSVerify", True, why))
        return errors
