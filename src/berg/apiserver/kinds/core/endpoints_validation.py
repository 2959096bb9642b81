"""What endpoints may say.

Source: kubernetes pkg/apis/core/validation ValidateEndpoints.
"""

from __future__ import annotations

from berg.apiserver.kinds import addresses, checks
from berg.apiserver.kinds.core.service_validation import endpoint_ip
from berg.machinery import names
from berg.machinery.status import FieldError, Obj, required

PROTOCOLS = ("SCTP", "TCP", "UDP")


def validate_endpoints(obj: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, subset in enumerate(obj.get("subsets") or ()):
        at = f"subsets[{i}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for j, address in enumerate(subset.get(key) or ()):
                errors += _address(address, f"{at}.{key}[{j}]")
        ports = subset.get("ports") or ()
        for j, port in enumerate(ports):
            errors += _port(port, f"{at}.ports[{j}]", named=len(ports) > 1)
    return errors


def _address(address: Obj, at: str) -> list[FieldError]:
    ip = address.get("ip") or ""
    errors = addresses.legacy_ip(f"{at}.ip", ip)
    if address.get("hostname"):
        errors += checks.named(f"{at}.hostname", address["hostname"], names.dns1123_label)
    if address.get("nodeName") is not None:
        errors += checks.named(f"{at}.nodeName", address["nodeName"])
    return errors + endpoint_ip(f"{at}.ip", ip)


def _port(port: Obj, at: str, *, named: bool) -> list[FieldError]:
    name = port.get("name") or ""
    errors: list[FieldError] = []
    if name:
        errors += checks.named(f"{at}.name", name, names.dns1123_label)
    elif named:
        errors.append(required(f"{at}.name"))
    errors += checks.port_number(f"{at}.port", port.get("port") or 0)
    errors += checks.one_of(f"{at}.protocol", port.get("protocol"), PROTOCOLS)
    if port.get("appProtocol") is not None:
        errors += checks.named(f"{at}.appProtocol", port["appProtocol"], names.qualified_name)
    return errors
