"""Whether a node fits a pod's node selector, required node affinity and tolerations. No I/O.

Source: k8s.io/component-helpers scheduling/corev1/nodeaffinity.
"""

from __future__ import annotations

from berg.controllers.objects import nested
from berg.controllers.tainteviction import tolerates
from berg.machinery import meta
from berg.machinery.labels import Selector
from berg.machinery.status import Obj


def matches_term(node: Obj, term: Obj) -> bool:
    """An empty term matches nothing."""
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False
    name = {"metadata.name": meta.name(node)}
    return Selector.of_node_expressions(expressions).matches(meta.labels(node)) and Selector.of_node_expressions(
        fields
    ).matches(name)


def fits_affinity(node: Obj, spec: Obj) -> bool:
    selector = spec.get("nodeSelector") or {}
    if not selector.items() <= meta.labels(node).items():
        return False
    required = nested(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(matches_term(node, t) for t in required.get("nodeSelectorTerms") or ())


def untolerated(node: Obj, tolerations: list[Obj], effects: tuple[str, ...]) -> Obj | None:
    """The first taint of one of these effects that nothing tolerates."""
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] in effects and not any(tolerates(t, taint) for t in tolerations):
            return taint
    return None
