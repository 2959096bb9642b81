"""Regular expressions as Go has them: RE2, whose time is linear in the text whatever the pattern.

Patterns come from users (schemas, rules); Python's own engine could be made to run for ever by one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

_GO = {
    "missing )": "missing closing )",
    "missing ]": "missing closing ]",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "bad repetition operator": "invalid nested repetition operator",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid named capture group": "invalid named capture",
    "trailing \\": "trailing backslash at end of expression",
}


@lru_cache(maxsize=512)
def compile(text: str) -> Any:
    """Of Python's interface are `search`, `finditer`. Raises ValueError, in Go's words."""
    import re2  # only where there is a pattern

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as e:
        raise ValueError(_fault(e.args[0] if e.args else "")) from None


def _fault(told: Any) -> str:
    """Go quotes what is wrong, and has words of its own for some of it."""
    why, _, what = (told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)).partition(": ")
    return f"error parsing regexp: {_GO.get(why, why)}: `{what}`"
