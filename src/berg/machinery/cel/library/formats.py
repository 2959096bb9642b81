"""Named formats: `format.dns1123Label().validate(name)`.

Source: k8s.io/apiserver pkg/cel/library/format.go.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from berg.machinery import names
from berg.machinery.cel.library import on
from berg.machinery.cel.library.times import timestamp
from berg.machinery.cel.values import NONE, EvaluationError, Named, Optional

_KIND = "kubernetes.NamedFormat"
_UUID = re.compile(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")


def _prefix(check: Callable[[str], Sequence[str]]) -> Callable[[str], Sequence[str]]:
    """What a name may begin with: it may end in a dash, because something follows."""
    return lambda text: check(text[:-1] + "a" if text.endswith("-") else text)


def _uri(text: str) -> Sequence[str]:
    try:
        parts = urlsplit(text)
    except ValueError as e:
        return [str(e)]
    if not (parts.scheme or text.startswith("/")):
        return [f'parse "{text}": invalid URI for request']
    return []


def _uuid(text: str) -> Sequence[str]:
    return [] if _UUID.fullmatch(text) else ["does not match the UUID format"]


def _byte(text: str) -> Sequence[str]:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return ["invalid base64"]
    return []


def _date(text: str) -> Sequence[str]:
    return _time(f"{text}T00:00:00Z", "invalid date")


def _datetime(text: str) -> Sequence[str]:
    return _time(text, "invalid datetime")


def _time(text: str, fault: str) -> Sequence[str]:
    try:
        timestamp(text)
    except EvaluationError:
        return [fault]
    return []


FORMATS: dict[str, Callable[[str], Sequence[str]]] = {
    "dns1123Label": names.dns1123_label,
    "dns1123Subdomain": names.dns1123_subdomain,
    "dns1035Label": names.dns1035_label,
    "qualifiedName": names.qualified_name,
    "dns1123LabelPrefix": _prefix(names.dns1123_label),
    "dns1123SubdomainPrefix": _prefix(names.dns1123_subdomain),
    "dns1035LabelPrefix": _prefix(names.dns1035_label),
    "labelValue": names.label_value,
    "uri": _uri,
    "uuid": _uuid,
    "byte": _byte,
    "date": _date,
    "datetime": _datetime,
}
for _name in FORMATS:
    on(f"format.{_name}")(lambda name=_name: Named(_KIND, name))


@on("format.named", "string")
def named(name: str) -> Optional:
    return Optional(Named(_KIND, name)) if name in FORMATS else NONE


@on("validate", _KIND, "string")
def validate(form: Named, text: str) -> Optional:
    faults = list(FORMATS[form.value](text))
    return Optional(faults) if faults else NONE
