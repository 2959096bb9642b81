"""Index lists of Indexed Jobs: `1,3-5,7`.

Source: kubernetes pkg/apis/batch/validation validateIndexesFormat.
"""

from __future__ import annotations


def _index(text: str, completions: int) -> int:
    if not text.isdigit():
        raise ValueError(f'cannot convert string to integer for index: "{text}"')
    if int(text) >= completions:
        raise ValueError(f'too large index: "{text}"')
    return int(text)


def intervals(text: str, completions: int) -> list[tuple[int, int]]:
    """Raises ValueError with upstream's message."""
    found: list[tuple[int, int]] = []
    for part in text.split(",") if text else ():
        limits = part.split("-")
        if len(limits) > 2:
            raise ValueError(
                f'the fragment "{part}" violates the requirement that an index interval can have at most two parts '
                "separated by '-'"
            )
        first = _index(limits[0], completions)
        last = first
        if len(limits) == 2:
            last = _index(limits[1], completions)
            if first >= last:
                raise ValueError(f"non-increasing order, previous: {first}, current: {last}")
        if found and found[-1][1] >= first:
            raise ValueError(f"non-increasing order, previous: {found[-1][1]}, current: {first}")
        found.append((first, last))
    return found


def fault(text: str, completions: int) -> str:
    try:
        intervals(text, completions)
    except ValueError as e:
        return str(e)
    return ""


def total(text: str, completions: int) -> int:
    """How many indexes; 0 for a list that is not sound."""
    try:
        return sum(last - first + 1 for first, last in intervals(text, completions))
    except ValueError:
        return 0


def overlap(a: str, b: str, completions: int) -> int | None:
    """The first index in both; none where one is not sound."""
    try:
        left, right = intervals(a, completions), intervals(b, completions)
    except ValueError:
        return None
    for x, y in left:
        for u, v in right:
            if x <= v and u <= y:
                return max(x, u)
    return None
