"""Node selectors as masks: `nodeSelector`, node affinity, and the like, over label columns.

A requirement is decided once for each distinct value of the label, then looked up by row.

Source: k8s.io/component-helpers scheduling/corev1/nodeaffinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from berg.scheduler.state.arrays import Bools, Rows
from berg.scheduler.state.snapshot import Snapshot

Obj = dict[str, Any]


def count_rows(snapshot: Snapshot, rows: Rows) -> int:
    return snapshot.capacity if isinstance(rows, slice) else len(rows)


def requirement(snapshot: Snapshot, expression: Obj, rows: Rows) -> Bools:
    column = snapshot.label(expression["key"])
    ids = column.ids[rows]
    operator = expression["operator"]
    values: Sequence[str] = expression.get("values") or ()
    match operator:
        case "In" | "NotIn":
            hit: Bools
            if len(values) == 1:
                hit = np.equal(ids, column.values.id(values[0]))
            else:
                table = np.zeros(column.domains + len(values) + 1, dtype=np.bool_)
                for v in values:
                    table[column.values.id(v)] = True
                hit = table[ids]
            return hit if operator == "In" else ~hit
        case "Exists":
            return np.greater_equal(ids, 0)
        case "DoesNotExist":
            return np.less(ids, 0)
        case "Gt" | "Lt":
            try:
                bound = int(values[0])
            except (ValueError, IndexError):
                return np.zeros(len(ids), dtype=np.bool_)
            numbers = column.numbers()[ids]
            with np.errstate(invalid="ignore"):
                return numbers > bound if operator == "Gt" else numbers < bound
    return np.zeros(len(ids), dtype=np.bool_)


def field_requirement(snapshot: Snapshot, expression: Obj, rows: Rows) -> Bools:
    """Only `metadata.name` can be selected by."""
    hit = np.zeros(snapshot.capacity, dtype=np.bool_)
    if expression.get("key") == "metadata.name":
        for name in expression.get("values") or ():
            if (row := snapshot.rows.get(name)) is not None:
                hit[row] = True
        if expression["operator"] == "NotIn":
            hit = ~hit
    return hit[rows]


def term(snapshot: Snapshot, one: Obj, rows: Rows) -> Bools:
    """All expressions and fields of a NodeSelectorTerm; an empty term matches nothing."""
    expressions, fields = one.get("matchExpressions") or (), one.get("matchFields") or ()
    if not expressions and not fields:
        return np.zeros(count_rows(snapshot, rows), dtype=np.bool_)
    hit: Bools = np.ones(count_rows(snapshot, rows), dtype=np.bool_)
    for e in expressions:
        hit &= requirement(snapshot, e, rows)
    for f in fields:
        hit &= field_requirement(snapshot, f, rows)
    return hit


def node_selector(snapshot: Snapshot, selector: Obj, rows: Rows) -> Bools:
    """Any term of a NodeSelector."""
    hit: Bools = np.zeros(count_rows(snapshot, rows), dtype=np.bool_)
    for one in selector.get("nodeSelectorTerms") or ():
        hit |= term(snapshot, one, rows)
    return hit


def required(snapshot: Snapshot, spec: Obj, rows: Rows) -> Bools | None:
    """A pod spec's nodeSelector and required node affinity; None when it has neither."""
    labels = spec.get("nodeSelector")
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not labels and affinity is None:
        return None
    hit: Bools = np.ones(count_rows(snapshot, rows), dtype=np.bool_)
    for key, value in (labels or {}).items():
        hit &= requirement(snapshot, {"key": key, "operator": "In", "values": [value]}, rows)
    if affinity is not None:
        hit &= node_selector(snapshot, affinity, rows)
    return hit


def matches_node(selector: Obj, node: Obj) -> bool:
    """The same for one node object that need not be in a snapshot."""
    from berg.machinery.labels import Selector

    meta = node["metadata"]
    labels = meta.get("labels") or {}
    for one in selector.get("nodeSelectorTerms") or ():
        expressions, fields = one.get("matchExpressions") or [], one.get("matchFields") or ()
        if not expressions and not fields:
            continue
        if not Selector.of_node_expressions(expressions).matches(labels):
            continue
        if all((meta["name"] in (f.get("values") or ())) == (f["operator"] == "In") for f in fields):
            return True
    return False
