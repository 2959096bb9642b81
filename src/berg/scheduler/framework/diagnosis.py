"""Why a pod found no node: upstream's FitError and Diagnosis.

Statuses are kept once for each distinct answer, with the rows that gave it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from berg.scheduler.framework.interface import Cycle
from berg.scheduler.framework.status import Code, Status

NodeRows = NDArray[np.intp]


@dataclass(slots=True)
class Diagnosis:
    nodes: int
    """all there are"""
    groups: list[tuple[Status, NodeRows]] = field(default_factory=list)
    pre_filter_message: str = ""
    post_filter_message: str = ""
    plugins: set[str] = field(default_factory=set)
    """who rejected it: their events may help"""
    pending_plugins: set[str] = field(default_factory=set)

    def add(self, status: Status, rows: NodeRows) -> None:
        if status.plugin:
            (self.pending_plugins if status.code == Code.PENDING else self.plugins).add(status.plugin)
        self.groups.append((status, rows))

    def rows_with(self, code: Code) -> NodeRows:
        found = [rows for status, rows in self.groups if status.code == code]
        return np.sort(np.concatenate(found)) if found else np.zeros(0, dtype=np.intp)

    def code_of(self, row: int) -> Code | None:
        for status, rows in self.groups:
            if row in rows:
                return status.code
        return None

    def message(self) -> str:
        """`0/3 nodes are available: 1 node(s) …, 2 Insufficient cpu. preemption: …`"""
        text = f"0/{self.nodes} nodes are available:"
        if self.pre_filter_message:
            text += f" {self.pre_filter_message}."
        else:
            counts: Counter[str] = Counter()
            for status, rows in self.groups:
                for reason in status.reasons:
                    counts[reason] += len(rows)
            if counts:
                text += f" {', '.join(sorted(f'{n} {reason}' for reason, n in counts.items()))}."
        if self.post_filter_message:
            text += f" {self.post_filter_message}"
        return text


class FitError(Exception):
    """No node fits. `cycle` is what PostFilter plugins go on with."""

    def __init__(self, diagnosis: Diagnosis, cycle: Cycle) -> None:
        super().__init__(diagnosis.message())
        self.diagnosis = diagnosis
        self.cycle = cycle
