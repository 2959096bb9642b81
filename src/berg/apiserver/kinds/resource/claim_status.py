"""What may be written into a claim's status: its allocation, what drivers say of its devices, who has reserved it.

Source: kubernetes pkg/apis/resource/validation, pkg/registry/resource/resourceclaim.
"""

from __future__ import annotations

import re
from functools import partial

from berg.apiserver.kinds import addresses, checks, immutable
from berg.apiserver.kinds.core.pod_spec.scheduling import validate_node_selector
from berg.apiserver.kinds.label_selectors import validate_conditions
from berg.apiserver.kinds.resource import lists
from berg.apiserver.kinds.resource.claim_validation import (
    CONFIGS,
    REQUESTS,
    configuration,
    free_object,
    request_names,
    request_reference,
    same,
)
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, required, too_long, too_many

_RESERVATIONS = 256
_CONDITIONS = 8
_IPS, _LONGEST_INTERFACE, _LONGEST_HARDWARE_ADDRESS = 16, 256, 128
_hex = re.compile(r"[0-9a-fA-F]*")

DeviceId = tuple[str, str, str, str]
"""driver, pool, device, share"""


def allocated_devices(status: Obj) -> set[DeviceId]:
    allocation = status.get("allocation") or {}
    return {device_id(r) for r in (allocation.get("devices") or {}).get("results") or ()}


def device_id(body: Obj) -> DeviceId:
    return tuple(body.get(k) or "" for k in ("driver", "pool", "device", "shareID"))  # type: ignore[return-value]


def drop_deallocated(status: Obj, before: Obj) -> None:
    """What was said of devices goes with their allocation."""
    gone = allocated_devices(before) - allocated_devices(status)
    if gone and status.get("devices"):
        status["devices"] = [d for d in status["devices"] if device_id(d) not in gone]
        if not status["devices"]:
            del status["devices"]


def validate_claim_status(obj: Obj, old: Obj) -> list[FieldError]:
    status, before = obj.get("status") or {}, old.get("status") or {}
    reserved, allocation = status.get("reservedFor") or [], status.get("allocation")
    errors = lists.items("status.reservedFor", reserved, _RESERVATIONS, _consumer, lambda c: c.get("uid") or "")
    devices = status.get("devices") or []
    device = partial(_device, allocated=allocated_devices(status))
    errors += lists.items("status.devices", devices, len(devices), device, device_id, shown=_shown)
    if reserved and allocation is None:
        why = "may not be specified when `allocated` is not set"
        errors.append(forbidden_field("status.reservedFor", why))
    elif obj["metadata"].get("deletionTimestamp") and any(r not in (before.get("reservedFor") or ()) for r in reserved):
        why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        errors.append(forbidden_field("status.reservedFor", why))
    if allocation is None:
        return errors
    if before.get("allocation") is not None:
        return errors + immutable.immutable(obj, old, "status.allocation")
    return errors + _allocation(allocation, request_names((obj.get("spec") or {}).get("devices") or {}))


def _consumer(consumer: Obj, at: str) -> list[FieldError]:
    return checks.present(consumer, at, "resource", "name", "uid")


def _shown(key: DeviceId) -> Obj:
    return dict(zip(("Driver", "Pool", "Device", "ShareID"), key, strict=True))


def _device(body: Obj, at: str, *, allocated: set[DeviceId]) -> list[FieldError]:
    errors = _named_device(body, at)
    if body.get("shareID") is not None:
        errors += _uid(f"{at}.shareID", body["shareID"])
    key = device_id(body)
    if key not in allocated:
        errors.append(invalid_value(at, _shown(key), "must be an allocated device in the claim"))
    conditions = body.get("conditions") or []
    if len(conditions) > _CONDITIONS:
        errors.append(too_many(f"{at}.conditions", len(conditions), _CONDITIONS))
    errors += validate_conditions(conditions, f"{at}.conditions")
    if body.get("data") is not None:
        errors += free_object(body["data"], f"{at}.data")
    return errors + _network(body.get("networkData") or {}, f"{at}.networkData")


def _named_device(body: Obj, at: str) -> list[FieldError]:
    errors = lists.driver_name(f"{at}.driver", body.get("driver") or "")
    errors += lists.pool_name(f"{at}.pool", body.get("pool") or "")
    return errors + checks.named(f"{at}.device", body.get("device") or "", names.dns1123_label)


def _network(body: Obj, at: str) -> list[FieldError]:
    errors = [
        too_long(f"{at}.{key}", "", most)
        for key, most in (("interfaceName", _LONGEST_INTERFACE), ("hardwareAddress", _LONGEST_HARDWARE_ADDRESS))
        if len((body.get(key) or "").encode()) > most
    ]

    def ip(text: str, path: str) -> list[FieldError]:
        return addresses.interface_address(path, text)

    return errors + lists.items(f"{at}.ips", body.get("ips"), _IPS, ip, same)


def _uid(path: str, text: str) -> list[FieldError]:
    fault = _uuid_fault(text)
    if fault:
        return [invalid_value(path, text, f"error validating uid: {fault}")]
    if len(text) != 36 or text != text.lower():
        why = (
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase "
            "hexadecimal characters"
        )
        return [invalid_value(path, text, why)]
    return []


def _uuid_fault(text: str) -> str:
    """Source: github.com/google/uuid Validate."""
    size = len(text.encode())
    if size == 45:
        if text[:9].lower() != "urn:uuid:":
            return f'invalid urn prefix: "{text[:9]}"'
        text = text[9:]
    elif size == 38:
        if text[0] != "{" or text[-1] != "}":
            return "invalid bracketed UUID format"
        text = text[1:-1]
    elif size not in (32, 36):
        return f"invalid UUID length: {size}"
    dashes = len(text) == 32 or all(text[i] == "-" for i in (8, 13, 18, 23))
    digits = text if len(text) == 32 else text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:]
    return "" if dashes and _hex.fullmatch(digits) else "invalid UUID format"


def _allocation(allocation: Obj, known: set[str]) -> list[FieldError]:
    devices = allocation.get("devices") or {}
    at = "status.allocation"
    reference = partial(request_reference, known=known)

    def result(body: Obj, path: str) -> list[FieldError]:
        errors = reference(body.get("request") or "", f"{path}.request")
        errors += _named_device(body, path)
        errors += lists.binding_conditions(body, path)
        return errors + (_uid(f"{path}.shareID", body["shareID"]) if body.get("shareID") is not None else [])

    def config(body: Obj, path: str) -> list[FieldError]:
        source = body.get("source")
        errors = checks.one_of(f"{path}.source", source, ("FromClaim", "FromClass")) if source else []
        errors += [] if source else [required(f"{path}.source")]
        errors += lists.items(f"{path}.requests", body.get("requests"), REQUESTS, reference, same)
        return errors + configuration(body, path)

    errors = lists.items(f"{at}.devices.results", devices.get("results"), REQUESTS, result)
    errors += lists.items(f"{at}.devices.config", devices.get("config"), 2 * CONFIGS, config)
    if allocation.get("nodeSelector") is not None:
        errors += validate_node_selector(allocation["nodeSelector"], f"{at}.nodeSelector")
    return errors
