"""How far the server has started, as health checks: what upstream's post-start hooks stand for here.

One of our parts often does the work of several of theirs, so one milestone answers to several names: who looks for
a check by its name finds it, and it fails for as long as that part is not up.

Source: kubernetes pkg/controlplane, k8s.io/{apiserver,apiextensions-apiserver,kube-aggregator} post-start hooks.
"""

from __future__ import annotations

from functools import partial

from berg.apiserver.health import Health

CACHES, CUSTOM, ALLOCATION, AGGREGATOR, REGISTERED = "caches", "custom", "allocation", "aggregator", "registered"
_HOOKS = {
    CACHES: (
        "storage-readiness",
        "storage-object-count-tracker-hook",
        "generic-apiserver-start-informers",
        "start-apiserver-admission-initializer",
        "priority-and-fairness-config-consumer",
        "priority-and-fairness-filter",
    ),
    CUSTOM: ("start-apiextensions-informers", "start-apiextensions-controllers", "crd-informer-synced"),
    ALLOCATION: ("start-service-ip-repair-controllers", "start-kubernetes-service-cidr-controller"),
    AGGREGATOR: (
        "start-kube-aggregator-informers",
        "apiservice-registration-controller",
        "apiservice-status-local-available-controller",
        "apiservice-status-remote-available-controller",
        "apiservice-openapi-controller",
        "apiservice-openapiv3-controller",
        "apiservice-discovery-controller",
        "apiservice-wait-for-first-sync",
    ),
    REGISTERED: ("kube-apiserver-autoregistration",),
}


class Milestones:
    def __init__(self, health: Health) -> None:
        self._left = set(_HOOKS)
        for milestone, hooks in _HOOKS.items():
            for hook in hooks:
                health.add(f"poststarthook/{hook}", partial(self._fault, milestone))
        health.add("autoregister-completion", partial(self._fault, REGISTERED))
        health.add("informer-sync", partial(self._fault, CACHES), paths=("/readyz",))

    def reached(self, milestone: str) -> None:
        self._left.discard(milestone)

    def _fault(self, milestone: str) -> str | None:
        return "not finished" if milestone in self._left else None
