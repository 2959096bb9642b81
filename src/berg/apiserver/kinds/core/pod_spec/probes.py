"""Probes and life-cycle hooks of containers.

Source: kubernetes pkg/apis/core/validation validateProbe, validateHandler, validateLifecycle.
"""

from __future__ import annotations

import re

from berg.apiserver.kinds import checks
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value, not_supported, required

_HEADER = re.compile("[-A-Za-z0-9]+")
_HEADER_MESSAGE = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
    "validation is '[-A-Za-z0-9]+')"
)
_SIGNALS = (
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP "
    "TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX"
)
LINUX_SIGNALS = sorted(
    [f"SIG{s}" for s in _SIGNALS.split()]
    + [f"SIGRTMIN+{i}" for i in range(1, 16)]
    + [f"SIGRTMAX-{i}" for i in range(1, 15)]
)
WINDOWS_SIGNALS = ["SIGKILL", "SIGTERM"]
_COUNTS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def validate_probes(c: Obj, grace_s: int | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := c.get(key)) is None:
            continue
        at = f"{path}.{key}"
        errors += _probe(probe, grace_s, at)
        if key == "readinessProbe":
            if (given := probe.get("terminationGracePeriodSeconds")) is not None:
                errors.append(
                    invalid_value(f"{at}.terminationGracePeriodSeconds", given, "must not be set for readinessProbes")
                )
        elif probe.get("successThreshold", 1) != 1:
            errors.append(invalid_value(f"{at}.successThreshold", probe["successThreshold"], "must be 1"))
    return errors


def _probe(probe: Obj, grace_s: int | None, path: str) -> list[FieldError]:
    errors = _handler(probe, ("exec", "httpGet", "tcpSocket", "grpc"), grace_s, path)
    for key in _COUNTS:
        errors += checks.not_negative(f"{path}.{key}", probe.get(key))
    return errors + checks.positive(f"{path}.terminationGracePeriodSeconds", probe.get("terminationGracePeriodSeconds"))


def _handler(handler: Obj, kinds: tuple[str, ...], grace_s: int | None, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    given = [k for k in kinds if handler.get(k) is not None]
    for i, kind in enumerate(given):
        at, body = f"{path}.{kind}", handler[kind]
        if i:
            errors.append(forbidden_field(at, "may not specify more than 1 handler type"))
        elif kind == "exec":
            if not body.get("command"):
                errors.append(required(f"{at}.command"))
        elif kind == "httpGet":
            errors += _http_get(body, at)
        elif kind in ("tcpSocket", "grpc"):
            errors += checks.port(f"{at}.port", body.get("port"))
        elif kind == "sleep":
            seconds = body.get("seconds") or 0
            if grace_s is not None and not 0 <= seconds <= grace_s:
                why = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_s})"
                errors.append(invalid_value(at, seconds, why))
    if not given:
        errors.append(required(path, "must specify a handler type"))
    return errors


def _http_get(get: Obj, path: str) -> list[FieldError]:
    errors = [] if get.get("path") else [required(f"{path}.path")]
    errors += checks.port(f"{path}.port", get.get("port"))
    if get.get("scheme") not in ("HTTP", "HTTPS"):
        errors.append(not_supported(f"{path}.scheme", get.get("scheme") or "", ["HTTP", "HTTPS"]))
    for header in get.get("httpHeaders") or ():
        if not _HEADER.fullmatch(header.get("name") or ""):
            errors.append(invalid_value(f"{path}.httpHeaders", header.get("name") or "", _HEADER_MESSAGE))
    return errors


def validate_lifecycle(lifecycle: Obj, grace_s: int | None, path: str, os: str | None) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("postStart", "preStop"):
        if (hook := lifecycle.get(key)) is not None:
            errors += _handler(hook, ("exec", "httpGet", "tcpSocket", "sleep"), grace_s, f"{path}.{key}")
    if (signal := lifecycle.get("stopSignal")) is not None:
        at = f"{path}.stopSignal"
        if not os:
            errors.append(forbidden_field(at, "may not be set for containers with empty `spec.os.name`"))
        else:
            supported = {"linux": LINUX_SIGNALS, "windows": WINDOWS_SIGNALS}.get(os)
            if supported is not None and signal not in supported:
                errors.append(not_supported(at, signal, supported))
    return errors
