"""What only Windows knows: options of its security contexts, host process containers.

Source: kubernetes pkg/apis/core/validation validateWindowsSecurityContextOptions, validateWindowsHostProcessPod.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from berg.apiserver.kinds import checks
from berg.machinery.status import FieldError, Obj, forbidden_field, invalid_value

_SPEC_KIB = 64
_DOMAIN_LIMIT, _USER_LIMIT = 256, 104
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NET_BIOS = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}')
_DNS_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DNS_DOMAIN = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")
_BAD_IN_USER = re.compile(r'["/\\:;|=,+*?<>@\[\]]')


def validate_options(options: Obj | None, path: str) -> list[FieldError]:
    if not options:
        return []
    errors: list[FieldError] = []
    if (name := options.get("gmsaCredentialSpecName")) is not None:
        errors += checks.named(f"{path}.gmsaCredentialSpecName", name)
    if (spec := options.get("gmsaCredentialSpec")) is not None:
        if not spec:
            why = "gmsaCredentialSpec cannot be an empty string"
            errors.append(invalid_value(f"{path}.gmsaCredentialSpec", spec, why))
        elif len(spec.encode()) > _SPEC_KIB * 1024:
            why = f"gmsaCredentialSpec size must be under {_SPEC_KIB} KiB"
            errors.append(invalid_value(f"{path}.gmsaCredentialSpec", spec, why))
    if (user := options.get("runAsUserName")) is not None:
        errors += [invalid_value(f"{path}.runAsUserName", user, f"runAsUserName{why}") for why in _user_faults(user)]
    return errors


def _user_faults(name: str) -> Iterator[str]:
    """`DOMAIN\\user` or just a user."""
    domain, backslash, user = name.rpartition("\\")
    if not name:
        yield " cannot be an empty string"
    elif _CONTROL.search(name):
        yield " cannot contain control characters"
    elif "\\" in domain:
        yield " cannot contain more than one backslash"
    else:
        if len(domain.encode()) >= _DOMAIN_LIMIT:
            yield f"'s Domain length must be under {_DOMAIN_LIMIT} characters"
        if backslash and not _NET_BIOS.fullmatch(domain) and not _DNS_DOMAIN.fullmatch(domain):
            yield "'s Domain doesn't match the NetBios nor the DNS format"
        if not user:
            yield "'s User cannot be empty"
        elif len(user.encode()) > _USER_LIMIT:
            yield f"'s User length must not be longer than {_USER_LIMIT} characters"
        if user and not user.strip(". "):
            yield "'s User cannot contain only periods or spaces"
        if _BAD_IN_USER.search(user):
            yield "'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"


def _host_process(holder: Obj) -> bool | None:
    found: bool | None = ((holder.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    return found


def validate_host_process(
    spec: Obj, path: str, containers: Iterable[tuple[Obj, str]], *, allowed: bool
) -> list[FieldError]:
    """Either all containers (each with its path) are processes of the host, in its network, or none is."""
    of_pod, errors = _host_process(spec), []
    found: list[bool | None] = []
    for c, at in containers:
        own = _host_process(c)
        if of_pod is not None and own is not None and of_pod != own:
            why = f"pod hostProcess value must be identical if both are specified, was {str(of_pod).lower()}"
            errors.append(invalid_value(f"{at}.securityContext.windowsOptions.hostProcess", own, why))
        found.append(of_pod if own is None else own)
    if any(found):
        if not all(found):
            why = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
            errors.append(invalid_value(path, "", why))
        if not spec.get("hostNetwork"):
            why = "hostNetwork must be true if pod contains any hostProcess containers"
            errors.append(invalid_value(f"{path}.hostNetwork", False, why))
        if not allowed:
            errors.append(forbidden_field(path, "hostProcess containers are disallowed by cluster policy"))
    return errors
