"""Warnings for the client, as `Warning` headers that every HTTP library can read.

What was written into a header must not end it: texts with control characters are left out. All together stay below
4,096 characters; where they would not, each is cut, and the rest is left out.

Source: RFC 7234 5.5; k8s.io/apiserver pkg/endpoints/filters/warning.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TOTAL, _EACH = 4096, 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def header(texts: Iterable[str]) -> str:
    """The value of the header; several lines are several headers. Empty when there is nothing to say."""
    kept = [text for text in dict.fromkeys(texts) if text]
    if sum(map(len, kept)) > _TOTAL:
        kept, room = [text[:_EACH] for text in kept], _TOTAL
        for i, text in enumerate(kept):
            if room <= 0:
                del kept[i:]
                break
            room -= len(text)
    said = "\n".join(f'299 - "{_quoted(text)}"' for text in kept if not _CONTROL.search(text))
    return said.encode().decode("latin-1")  # headers leave as Latin-1; clients read UTF-8


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
