"""In which order groups and their versions are listed: by the priorities of their APIServices.

Source: kubernetes pkg/controlplane/apiserver/aggregator.go, k8s.io/kube-aggregator pkg/apis/apiregistration/helpers.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from berg.machinery.resources import version_rank

CUSTOM = (1000, 100)
"""of groups that come from definitions"""
APIREGISTRATION = "apiregistration.k8s.io"
"""has no APIService, and leads"""
_GROUPS = {
    APIREGISTRATION: 20000,
    "": 18000,
    "apps": 17800,
    "events.k8s.io": 17750,
    "authentication.k8s.io": 17700,
    "authorization.k8s.io": 17600,
    "autoscaling": 17500,
    "batch": 17400,
    "certificates.k8s.io": 17300,
    "networking.k8s.io": 17200,
    "policy": 17100,
    "rbac.authorization.k8s.io": 17000,
    "storage.k8s.io": 16800,
    "admissionregistration.k8s.io": 16700,
    "apiextensions.k8s.io": 16700,
    "scheduling.k8s.io": 16600,
    "coordination.k8s.io": 16500,
    "node.k8s.io": 16300,
    "discovery.k8s.io": 16200,
    "resource.k8s.io": 16200,
    "flowcontrol.apiserver.k8s.io": 16100,
    "internal.apiserver.k8s.io": 16000,
    "storagemigration.k8s.io": 15800,
    "lifecycle.k8s.io": 15700,
}
_VERSIONS = {
    ("", "v1"): 1,
    ("autoscaling", "v2"): 30,
    ("admissionregistration.k8s.io", "v1beta1"): 12,
    ("admissionregistration.k8s.io", "v1alpha1"): 9,
    ("coordination.k8s.io", "v1beta1"): 13,
    ("coordination.k8s.io", "v1alpha2"): 12,
    ("scheduling.k8s.io", "v1alpha3"): 2,
    ("resource.k8s.io", "v1"): 21,
    ("resource.k8s.io", "v1beta2"): 15,
    ("flowcontrol.apiserver.k8s.io", "v1"): 21,
    ("internal.apiserver.k8s.io", "v1alpha1"): 9,
    ("lifecycle.k8s.io", "v1alpha1"): 9,
}
_STAGES = (15, 9, 1)
"""stable, beta, alpha: what is not said above"""

Priorities = tuple[int, int]
"""of the group, at least, and of the version in it"""


def default(group: str, version: str) -> Priorities:
    """Those with which a group version of this server's own is registered."""
    if group not in _GROUPS:
        return CUSTOM
    own = _VERSIONS.get((group, version))
    return _GROUPS[group], _STAGES[min(version_rank(version)[0], 2)] if own is None else own


def ordered(
    listed: Iterable[tuple[str, str]], known: Mapping[tuple[str, str], Priorities], *, aggregated: bool = False
) -> dict[str, list[str]]:
    """Group → its versions, both most preferred first. `known`: what APIServices say. Where groups are alike, the
    documents of old go by the names of APIServices, aggregated ones by those of groups."""
    said = {gv: known.get(gv) or default(*gv) for gv in listed}

    def rank(gv: tuple[str, str]) -> tuple[int, str]:
        group, version = gv
        return -said[gv][0], group if aggregated else f"{version}.{group}"

    found: dict[str, list[str]] = {}
    for group, version in sorted(said, key=rank):
        found.setdefault(group, []).append(version)
    for group, versions in found.items():
        versions.sort(key=lambda v: (-said[group, v][1], version_rank(v)))
    return found
