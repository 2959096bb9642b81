"""Whether a concurrent history of operations on registers is linearizable: Wing and Gong's search, with Lowe's memory
of configurations already tried.

An operation has a time of call and a time of return; one that never learned its outcome returns never, and may
have happened at any time after its call or not at all. Linearizability is compositional, so each key is checked by
itself.

Source: J. M. Wing, C. Gong, "Testing and verifying concurrent objects" (1993); G. Lowe, "Testing for
linearizability" (2017).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import inf
from typing import Any

Value = bytes | None


@dataclass(frozen=True, slots=True)
class Operation:
    """`kind` is read (observes `result`), write (of `value`), delete, or swap (of `expected` for `value`, `result`
    says whether it did; None: unknown)."""

    key: bytes
    kind: str
    called: float
    returned: float
    value: Value = None
    expected: Value = None
    result: Any = None


def step(state: Value, op: Operation) -> tuple[bool, Value]:
    """(whether `op` may happen in this state, the state after it)."""
    if op.kind == "read":
        return state == op.result, state
    if op.kind == "write":
        return True, op.value
    if op.kind == "delete":
        return True, None
    did = state == op.expected
    if op.result is not None and did != op.result:
        return False, state
    return True, op.value if did else state


def is_linearizable(history: list[Operation], initial: Value = None) -> bool:
    by_key: dict[bytes, list[Operation]] = defaultdict(list)
    for op in history:
        by_key[op.key].append(op)
    return all(_check(ops, initial) for ops in by_key.values())


def _check(ops: list[Operation], initial: Value) -> bool:
    ops = sorted(ops, key=lambda op: op.called)
    known = [i for i, op in enumerate(ops) if op.returned != inf]
    must = sum(1 << i for i in known)
    seen: set[tuple[int, Value]] = set()
    stack: list[tuple[int, Value]] = [(0, initial)]  # (which operations have happened, the state)
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        # the next to happen was called before the first return among those that have not happened
        limit = min((ops[i].returned for i in known if not done >> i & 1), default=inf)
        for i, op in enumerate(ops):
            if op.called > limit:
                break
            if done >> i & 1:
                continue
            possible, after = step(state, op)
            configuration = (done | 1 << i, after)
            if possible and configuration not in seen:
                seen.add(configuration)
                stack.append(configuration)
    return False
