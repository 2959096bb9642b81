"""Labels of nodes that selectors should use no more.

Source: kubernetes pkg/api/node/util.go.
"""

from __future__ import annotations

from collections.abc import Iterator

from berg.machinery import names
from berg.machinery.status import Obj

LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}
SUCCESSORS = {
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
}


def in_term(term: Obj, path: str, *, values: bool = False) -> Iterator[str]:
    """Warnings of a node selector's term, or of a label selector's expressions. `values`: of bad values, too."""
    for i, e in enumerate(term.get("matchExpressions") or ()):
        at, key = f"{path}.matchExpressions[{i}]", e.get("key")
        if key in LABELS:
            yield f"{at}.key: {key} is {LABELS[key]}"
        if values:
            for j, value in enumerate(e.get("values") or ()):
                yield from (f"{at}.values[{j}]: {value} is invalid, {fault}" for fault in names.label_value(value))
