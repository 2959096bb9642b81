"""Which names are allowed where. Each check returns upstream's messages, none when the name is good.

Source: k8s.io/apimachinery pkg/util/validation, pkg/api/validation.
"""

from __future__ import annotations

import re

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + r"(\." + _LABEL + ")*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = "(" + _QUALIFIED + ")?"
_ENV = "[-._a-zA-Z][-._a-zA-Z0-9]*"
_CONFIG_KEY = r"[-._a-zA-Z0-9]+"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"

_label = re.compile(_LABEL)
_subdomain = re.compile(_SUBDOMAIN)
_label_1035 = re.compile(_LABEL_1035)
_qualified = re.compile(_QUALIFIED)
_value = re.compile(_VALUE)
_env = re.compile(_ENV)
_relaxed_env = re.compile(r"[ -<>-~]+")
_config_key = re.compile(_CONFIG_KEY)
_c_identifier = re.compile(_C_IDENTIFIER)
_wildcard = re.compile(r"\*\." + _SUBDOMAIN)
_port_chars = re.compile(r"[-a-z0-9]+")


def _regex(message: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{e}', " for e in examples)  # with upstream's commas: 'my-name',  or '123-abc', regex …
    return f"{message} (e.g. {shown}regex used for validation is '{pattern}')"


def _long(limit: int, unit: str = "characters") -> str:
    """Upstream counts characters in names, and bytes in label keys and values."""
    return f"must be no more than {limit} {unit}"


LABEL_MESSAGE = _regex(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
SUBDOMAIN_MESSAGE = _regex(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
LABEL_1035_MESSAGE = _regex(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)
QUALIFIED_MESSAGE = _regex(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _QUALIFIED,
    "MyName",
    "my.name",
    "123-abc",
)
VALUE_MESSAGE = _regex(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character",
    _VALUE,
    "MyValue",
    "my_value",
    "12345",
)


def _check(name: str, pattern: re.Pattern[str], limit: int, message: str, unit: str = "characters") -> list[str]:
    faults = [] if len(name) <= limit else [_long(limit, unit)]
    if not pattern.fullmatch(name):
        faults.append(message)
    return faults


def dns1123_label(name: str) -> list[str]:
    faults = _check(name, _label, 63, LABEL_MESSAGE)
    if faults and faults[-1] == LABEL_MESSAGE and _subdomain.fullmatch(name):
        faults[-1] = "must not contain dots"
    return faults


def dns1123_subdomain(name: str) -> list[str]:
    return _check(name, _subdomain, 253, SUBDOMAIN_MESSAGE)


def dns1035_label(name: str) -> list[str]:
    return _check(name, _label_1035, 63, LABEL_1035_MESSAGE)


def wildcard_dns1123_subdomain(name: str) -> list[str]:
    message = _regex(
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
        "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
        r"\*\." + _SUBDOMAIN,
        "*.example.com",
    )
    return _check(name, _wildcard, 253, message)


def label_value(value: str) -> list[str]:
    return _check(value, _value, 63, VALUE_MESSAGE, "bytes")


def qualified_name(name: str) -> list[str]:
    """A label or annotation key: `[prefix/]name`."""
    faults: list[str] = []
    parts = name.split("/")
    if len(parts) == 2:
        prefix, short = parts
        if not prefix:
            faults.append("prefix part must be non-empty")
        else:
            faults += [f"prefix part {m}" for m in _check(prefix, _subdomain, 253, SUBDOMAIN_MESSAGE, "bytes")]
    elif len(parts) == 1:
        short = parts[0]
    else:
        return [
            "a valid label key "
            + _regex(
                "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
                "character",
                _QUALIFIED,
                "MyName",
                "my.name",
                "123-abc",
            )
            + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    if not short:
        faults.append("name part must be non-empty")
    elif len(short) > 63:
        faults.append("name part must be no more than 63 bytes")
    if not _qualified.fullmatch(short):
        faults.append(f"name part {QUALIFIED_MESSAGE}")
    return faults


def env_var_name(name: str) -> list[str]:
    if not name:
        return ["a valid environment variable name must be non-empty"]
    if not _relaxed_env.fullmatch(name):
        return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]
    return []


def config_map_key(key: str) -> list[str]:
    faults = [] if len(key) <= 253 else [_long(253)]
    if not _config_key.fullmatch(key):
        faults.append(
            _regex(
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
                _CONFIG_KEY,
                "key.name",
                "KEY_NAME",
                "key-name",
            )
        )
    if key == ".":
        faults.append("must not be '.'")
    if key == "..":
        faults.append("must not be '..'")
    elif key.startswith(".."):
        faults.append("must not start with '..'")
    return faults


def path_segment(name: str) -> list[str]:
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{c}'" for c in "/%" if c in name]


def port_name(port: str) -> list[str]:
    """An IANA service name."""
    faults = [] if len(port) <= 15 else [_long(15)]
    if not _port_chars.fullmatch(port):
        faults.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= c <= "z" for c in port):
        faults.append("must contain at least one letter (a-z)")
    if "--" in port:
        faults.append("must not contain consecutive hyphens")
    if port and (port[0] == "-" or port[-1] == "-"):
        faults.append("must not begin or end with a hyphen")
    return faults


def port_number(port: int) -> list[str]:
    return [] if 1 <= port <= 65535 else ["must be between 1 and 65535, inclusive"]


def in_range(value: int, low: int, high: int) -> list[str]:
    return [] if low <= value <= high else [f"must be between {low} and {high}, inclusive"]
