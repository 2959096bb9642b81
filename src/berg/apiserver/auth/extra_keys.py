"""Keys of a user's `extra`: paths below somebody's domain.

Source: k8s.io/apimachinery pkg/util/validation, IsDomainPrefixedPath.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from berg.machinery import names
from berg.machinery.status import FieldError, invalid_value, required

_PATH = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+"


def faults(key: str, path: str) -> Iterable[FieldError]:
    domain, slash, rest = key.partition("/")
    if not key:
        yield required(path)
    elif not slash or not domain or not rest:
        yield invalid_value(path, key, 'must be a domain-prefixed path (such as "acme.io/foo")')
    else:
        for fault in names.dns1123_subdomain(domain):
            yield invalid_value(path, domain, fault)
        if not re.fullmatch(_PATH, rest):
            yield invalid_value(path, rest, f"Invalid path (regex used for validation is '{_PATH}')")
