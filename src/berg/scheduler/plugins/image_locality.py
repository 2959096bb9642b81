"""ImageLocality: prefers nodes that have the pod's images, by size, damped where few nodes have them.

Source: plugins/imagelocality/image_locality.go.
"""

from __future__ import annotations

import numpy as np

from berg.scheduler.framework.interface import MAX_SCORE, Cycle, Ints, Rows, Scope, Score
from berg.scheduler.state.podinfo import PodClass

MIN_BYTES = 23 * 1024 * 1024
MAX_BYTES_PER_CONTAINER = 1000 * 1024 * 1024


class ImageLocality(Score):
    name = "ImageLocality"
    score_scope = Scope.NODE

    def scores_for(self, cls: PodClass) -> bool:
        return any(cls.images)

    def score(self, cycle: Cycle, rows: Rows) -> Ints | None:
        snapshot, cls = cycle.snapshot, cycle.cls
        columns = [snapshot.image(i) for i in cls.images if i]
        if not any(c.nodes for c in columns):
            return None
        total = np.zeros(len(snapshot.valid[rows]), dtype=np.int64)
        for column in columns:
            spread = column.nodes / max(snapshot.count, 1)
            total += (column.sizes[rows] * spread).astype(np.int64)
        top = MAX_BYTES_PER_CONTAINER * max(cls.containers, 1)
        return np.asarray(MAX_SCORE * (np.clip(total, MIN_BYTES, top) - MIN_BYTES) // (top - MIN_BYTES))
