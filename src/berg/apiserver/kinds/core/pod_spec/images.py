"""Image references, as far as the API server reads them: the tag decides the pull policy.

Source: distribution/reference; kubernetes pkg/util/parsers.
"""

from __future__ import annotations

import re
from functools import lru_cache

_HOST = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)


@lru_cache(4096)
def tag_of(image: str) -> str | None:
    """`latest` when there is neither tag nor digest; "" with only a digest; None when it is no reference."""
    found = _REFERENCE.fullmatch(image)
    if found is None:
        return None
    if tag := found["tag"]:
        return tag
    return "" if found["digest"] else "latest"


def pull_policy(image: str) -> str:
    name = image.partition("@")[0].rpartition(":")[0] or image
    return "Always" if tag_of(image) == "latest" and len(name) <= 255 else "IfNotPresent"
