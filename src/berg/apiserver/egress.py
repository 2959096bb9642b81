"""`--egress-selector-config-file`: how connections go out to nodes and pods, to etcd, to webhooks.

The file is checked as upstream checks it. Connections are made directly here: a configuration that asks for a proxy
is refused at the start, rather than let the server go around what the operator has put in its way.

Source: k8s.io/apiserver pkg/server/egressselector/config.go, KEP-1281.
"""

from __future__ import annotations

from pathlib import Path

from berg.machinery import status
from berg.machinery.codec import yaml
from berg.machinery.status import FieldError

_VERSIONS = ("apiserver.k8s.io/v1beta1", "apiserver.k8s.io/v1alpha1", "apiserver.config.k8s.io/v1beta1")
_NAMES = ("cluster", "controlplane", "etcd")
_PROTOCOLS = ("Direct", "HTTPConnect", "GRPC")
_PATH = "service.connection"


def check(path: str) -> None:
    """Raises ValueError for what cannot be used."""
    try:
        body, faults = yaml.loads_strict(Path(path).read_bytes())
    except (OSError, ValueError) as e:
        raise ValueError(f'unable to read egress selector configuration from "{path}" [{e}]') from None
    head = "failed to read egress config"
    if not isinstance(body, dict) or body.get("kind") != "EgressSelectorConfiguration":
        raise ValueError(f"{head}: no EgressSelectorConfiguration")
    if body.get("apiVersion") not in _VERSIONS:
        version = body.get("apiVersion")
        raise ValueError(f'{head}: no kind "EgressSelectorConfiguration" is registered for version "{version}"')
    faults += [f'unknown field "{name}"' for name in body if name not in ("kind", "apiVersion", "egressSelections")]
    if faults:
        raise ValueError(f"{head}: strict decoding error: {', '.join(faults)}")
    selections = body.get("egressSelections") or []
    if errors := _errors(selections):
        raise ValueError(f"failed to validate egress selector configuration: {'; '.join(map(str, errors))}")
    for one in selections:
        protocol = one["connection"]["proxyProtocol"]
        if protocol != "Direct":
            told = f'connections to "{one["name"]}" cannot go by {protocol} here: only Direct is followed'
            raise ValueError(f"egress-selector-config-file {path}: {told}")


def _errors(selections: list[dict[str, object]]) -> list[FieldError]:
    errors: list[FieldError] = []
    for one in selections:
        connection = one.get("connection")
        given = connection if isinstance(connection, dict) else {}
        protocol = str(given.get("proxyProtocol") or "")
        if protocol not in _PROTOCOLS:
            errors.append(status.not_supported(f"{_PATH}.protocol", protocol, list(_PROTOCOLS)))
        elif protocol == "Direct" and given.get("transport") is not None:
            why = "Transport config should be absent for direct connect"
            errors.append(status.invalid_value(f"{_PATH}.transport", "direct", why))
    seen: set[str] = set()
    for i, one in enumerate(selections):
        name = str(one.get("name") or "").lower()
        if name in seen:
            errors.append(status.duplicate(f"{_PATH}[{i}]", name))
        elif name not in _NAMES:
            errors.append(status.not_supported(_PATH, name, list(_NAMES)))
        seen.add(name)
    return errors
