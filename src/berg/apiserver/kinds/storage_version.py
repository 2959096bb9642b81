"""StorageVersions: in which version each API server writes a resource to the store.

Source: kubernetes pkg/printers, pkg/apis/apiserverinternal/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, duplicate, invalid_value, required

_SERVERS, _COMMON = "status.storageVersions", "status.commonEncodingVersion"
_FORM = (
    "an apiVersion is a DNS-1035 label, which must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for "
    "validation is '[a-z]([-a-z0-9]*[a-z0-9])?') with an optional DNS subdomain prefix and '/' (e.g. "
    "'example.com/MyVersion')"
)


def _versions(obj: Obj) -> str:
    found = (obj.get("status") or {}).get("storageVersions") or ()
    return cells.some([f"{v.get('apiServerID', '')}={v.get('encodingVersion', '')}" for v in found])


@strategy_for("internal.apiserver.k8s.io", "storageversions")
class StorageVersionStrategy(Strategy):
    status_metadata = ()
    namespaced = False
    generation = False
    allow_unconditional_update = False
    columns = [
        cells.NAME,
        Column("CommonEncodingVersion", cells.at("status.commonEncodingVersion", "<unset>")),
        Column("StorageVersions", _versions),
        cells.AGE,
    ]

    def prepare_for_create(self, ctx: Context, obj: Obj) -> None:
        obj["status"] = {}

    def validate_name(self, name: str, *, prefix: bool) -> Sequence[str]:
        group, dot, plural = name.rpartition(".")
        if not dot:
            return ["name must be in the form of <group>.<resource>"]
        faults = [f"the group segment {text}" for text in names.dns1123_subdomain(group)]
        return faults + [f"the resource segment {text}" for text in names.dns1035_label(plural)]

    def validate_status_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        status = obj.get("status") or {}
        servers = status.get("storageVersions") or []
        errors: list[FieldError] = []
        seen: set[str] = set()
        for i, server in enumerate(servers):
            at = f"{_SERVERS}[{i}]"
            if server.get("apiServerID") in seen:
                errors.append(duplicate(f"{at}.apiServerID", server["apiServerID"]))
            seen.add(server.get("apiServerID") or "")
            errors += _server(server, at)
        return [*errors, *_common(status, servers), *_conditions(status.get("conditions") or [])]


def _server(server: Obj, at: str) -> Iterator[FieldError]:
    identity, encoding = server.get("apiServerID") or "", server.get("encodingVersion") or ""
    decodable, served = server.get("decodableVersions") or [], server.get("servedVersions") or []
    for text in names.dns1123_subdomain(identity):
        yield invalid_value(f"{at}.apiServerID", identity, text)
    if faults := _api_version(encoding):
        yield invalid_value(f"{at}.encodingVersion", encoding, ",".join(faults))
    for i, version in enumerate(decodable):
        if faults := _api_version(version):
            yield invalid_value(f"{at}.decodableVersions[{i}]", version, ",".join(faults))
    if encoding not in decodable:
        why = f"decodableVersions must include encodingVersion {encoding}"
        yield invalid_value(f"{at}.decodableVersions", server.get("decodableVersions"), why)
    for i, version in enumerate(served):
        if faults := _api_version(version):
            yield invalid_value(f"{at}.servedVersions[{i}]", version, ",".join(faults))
        if version not in decodable:
            why = f"must be included in decodableVersions : [{' '.join(decodable)}]"
            yield invalid_value(f"{at}.servedVersions[{i}]", version, f"individual served version : {version} {why}")


def _common(status: Obj, servers: list[Obj]) -> Iterator[FieldError]:
    said = status.get("commonEncodingVersion")
    encoded = {s.get("encodingVersion") or "" for s in servers}
    actual = encoded.pop() if len(encoded) == 1 else None
    if actual is None and said is not None:
        why = "should be nil if servers do not agree on the same encoding version, or if there is no server reporting "
        yield invalid_value(_COMMON, said, f"{why}the supported versions yet")
    elif actual is not None and said is None:
        yield invalid_value(_COMMON, None, f"the common encoding version is {actual}")
    elif actual != said:
        yield invalid_value(_COMMON, said, f"the actual common encoding version is {actual}")


def _conditions(conditions: list[Obj]) -> Iterator[FieldError]:
    first: dict[str, int] = {}
    for i, condition in enumerate(conditions):
        at, kind = f"status[{i}]", condition.get("type") or ""
        if kind in first:
            why = f"the type of the condition is not unique, it also appears in conditions[{first[kind]}]"
            yield invalid_value(f"{at}.type", kind, why)
        first[kind] = i
        for key in ("type", "status"):
            value = condition.get(key) or ""
            for text in names.qualified_name(value):
                yield invalid_value(f"{at}.{key}", value, text)
        for key in ("reason", "message"):
            if not condition.get(key):
                yield required(f"{at}.{key}")


def _api_version(text: str) -> list[str]:
    parts = text.split("/")
    if len(parts) > 2:
        return [_FORM]
    group, version = parts if len(parts) == 2 else (None, parts[0])
    faults: list[str] = []
    if group is not None:
        faults += [f"group part: {t}" for t in (names.dns1123_subdomain(group) if group else ["must be non-empty"])]
    return faults + [f"version part: {t}" for t in (names.dns1035_label(version) if version else ["must be non-empty"])]
