"""String formats that a schema may name.

Source: k8s.io/kube-openapi pkg/validation/strfmt; the checks of github.com/asaskevich/govalidator that it uses.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlparse

from berg.machinery.clock import parse_rfc3339

Known = Callable[[str], bool]


def _matches(pattern: str, flags: int = 0) -> Known:
    found = re.compile(pattern, flags | re.ASCII)
    return lambda text: found.fullmatch(text) is not None


def _parses(parse: Callable[[str], object]) -> Known:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _date(text: str) -> bool:
    import datetime

    return re.fullmatch(r"\d{4}-\d\d-\d\d", text) is not None and _parses(datetime.date.fromisoformat)(text)


def _uri(text: str) -> bool:
    """What may stand in a request line: a path, or something with a scheme."""
    if any(c <= " " or c == "\x7f" for c in text):
        return False
    return text.startswith("/") or bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) and urlparse(text).scheme)


_SYMBOL = r"[^\W_]|[^\w\s!-/:-@\[-`{-~]"  # letters, digits and what is neither punctuation nor space
_LABEL = rf"(?:{_SYMBOL})(?:(?:{_SYMBOL}|-){{0,61}}(?:{_SYMBOL}))?"
_hostname = re.compile(rf"(?:{_SYMBOL})(?:-?(?:{_SYMBOL}){{0,62}})?|(?:{_LABEL}\.)+[^\W\d_]{{2,63}}")


def _is_hostname(text: str) -> bool:
    if len(text.encode()) > 255 or any(len(part.encode()) > 63 for part in text.split(".")):
        return False
    return _hostname.fullmatch(text) is not None


_GO_DURATION = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:ns|us|µs|μs|ms|s|m|h))+|[+-]?0")
_WORDS = re.compile(r"(\d+)\s*([A-Za-zµ]+)")
_UNITS = (
    ("ns", "nano"),
    ("us", "µs", "micro"),
    ("ms", "milli"),
    ("s", "sec"),
    ("m", "min"),
    ("h", "hr", "hour"),
    ("d", "day"),
    ("w", "week"),
)


def _duration(text: str) -> bool:
    """Go's own, or any text with an amount and a unit in it: `3 weeks`."""
    if _GO_DURATION.fullmatch(text):
        return True
    for _, word in _WORDS.findall(text):
        unit = word.lower()
        if any(unit in units or unit.startswith(units[-1]) for units in _UNITS):
            return True
    return False


def _isbn10(text: str) -> bool:
    digits = re.sub(r"[\s-]", "", text)
    if not re.fullmatch(r"[0-9]{9}[0-9X]", digits):
        return False
    return sum((i + 1) * (10 if d == "X" else int(d)) for i, d in enumerate(digits)) % 11 == 0


def _isbn13(text: str) -> bool:
    digits = re.sub(r"[\s-]", "", text)
    if not re.fullmatch(r"[0-9]{13}", digits):
        return False
    return sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(digits)) % 10 == 0


_CARD = re.compile(
    r"4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|(?:222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"
    r"|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11}"
    r"|6[27][0-9]{14}"
)


def _credit_card(text: str) -> bool:
    digits = re.sub(r"[^0-9]+", "", text)
    if not _CARD.fullmatch(digits):
        return False
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return sum(d // 10 + d % 10 for d in doubled) % 10 == 0


def _sloppy(text: str) -> str:
    return re.sub(r"(?<![0-9a-fA-F:])0+(?=[0-9])", "", text) if "." in text else text


_UUID = r"[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?{}-?{}-?[0-9a-f]{{12}}"
_PART, _VARIANT = "[0-9a-f]{4}", "[89ab][0-9a-f]{3}"
_BYTE = r"(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])"

FORMATS: dict[str, Known] = {
    "bsonobjectid": _matches("[0-9a-fA-F]{24}"),
    "uri": _uri,
    "email": _matches(r"[^@\s]+@[^@\s]+"),
    "hostname": _is_hostname,
    "ipv4": lambda text: "." in text and _parses(ipaddress.ip_address)(_sloppy(text)),
    "ipv6": lambda text: ":" in text and "%" not in text and _parses(ipaddress.IPv6Address)(text),
    "cidr": lambda text: "/" in text and _parses(lambda t: ipaddress.ip_network(t, strict=False))(_sloppy(text)),
    "mac": _matches(
        r"(?:[0-9a-f]{2}(?::[0-9a-f]{2}){5}|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2}"
        r"|[0-9a-f]{2}(?::[0-9a-f]{2}){7}|[0-9a-f]{2}(?:-[0-9a-f]{2}){7}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){3}"
        r"|[0-9a-f]{2}(?::[0-9a-f]{2}){19}|[0-9a-f]{2}(?:-[0-9a-f]{2}){19}|[0-9a-f]{4}(?:\.[0-9a-f]{4}){9})",
        re.IGNORECASE,
    ),
    "uuid": _matches(_UUID.format(_PART, _PART), re.IGNORECASE),
    "uuid3": _matches(_UUID.format("3[0-9a-f]{3}", _PART), re.IGNORECASE),
    "uuid4": _matches(_UUID.format("4[0-9a-f]{3}", _VARIANT), re.IGNORECASE),
    "uuid5": _matches(_UUID.format("5[0-9a-f]{3}", _VARIANT), re.IGNORECASE),
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": _isbn10,
    "isbn13": _isbn13,
    "creditcard": _credit_card,
    "ssn": _matches(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "hexcolor": _matches("#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "rgbcolor": _matches(rf"rgb\(\s*{_BYTE}\s*,\s*{_BYTE}\s*,\s*{_BYTE}\s*\)"),
    "byte": _matches(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})"),
    "date": _date,
    "datetime": _parses(parse_rfc3339),
    "date-time": _parses(parse_rfc3339),
    "duration": _duration,
    "k8s-short-name": lambda text: len(text) <= 63 and _matches("[a-z0-9]([-a-z0-9]*[a-z0-9])?")(text),
    "k8s-long-name": lambda text: (
        len(text) <= 253 and _matches(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")(text)
    ),
}
