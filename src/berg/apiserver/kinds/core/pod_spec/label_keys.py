"""matchLabelKeys: at creation a pod's own label values are merged into its affinity and spreading selectors.

Source: KEP-3633, KEP-3243; kubernetes pkg/registry/core/pod/strategy.go mutatePodAffinity.
"""

from __future__ import annotations

from collections.abc import Iterator

from berg.machinery.status import Obj


def affinity_terms(spec: Obj) -> Iterator[Obj]:
    """Every PodAffinityTerm of a spec."""
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(kind) or {}
        for weighted in found.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            if term := weighted.get("podAffinityTerm"):
                yield term
        yield from found.get("requiredDuringSchedulingIgnoredDuringExecution") or ()


def merge_label_keys(pod: Obj) -> None:
    spec, labels = pod["spec"], pod["metadata"].get("labels") or {}
    if spec.get("affinity"):
        for term in affinity_terms(spec):
            _merge(term, "matchLabelKeys", "In", labels)
            _merge(term, "mismatchLabelKeys", "NotIn", labels)
    for constraint in spec.get("topologySpreadConstraints") or ():
        _merge(constraint, "matchLabelKeys", "In", labels)


def _merge(holder: Obj, keys: str, operator: str, labels: Obj) -> None:
    selector = holder.get("labelSelector")
    if selector is None:
        return
    for key in holder.get(keys) or ():
        if key in labels:
            selector.setdefault("matchExpressions", []).append(
                {"key": key, "operator": operator, "values": [labels[key]]}
            )
