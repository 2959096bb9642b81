"""The priority levels and flow schemas that every cluster has.

The mandatory ones (`exempt`, `catch-all`) are as they are here, whatever is written; the suggested ones are put back as
long as they are marked to be kept up to date, and made when they are missing.

Source: k8s.io/apiserver pkg/apis/flowcontrol/bootstrap/default.go.
"""

from __future__ import annotations

import asyncio

from berg.apiserver.registry.modify import modify
from berg.apiserver.registry.services import Services
from berg.machinery.resources import Resource, resource
from berg.machinery.status import ApiError, Obj

GROUP = "flowcontrol.apiserver.k8s.io"
AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"

# name, shares, lendable percent, (queues, hand size, queue length) or None: reject
LEVELS: tuple[tuple[str, int, int, tuple[int, int, int] | None], ...] = (
    ("catch-all", 5, 0, None),
    ("system", 30, 33, (64, 6, 50)),
    ("node-high", 40, 25, (64, 6, 50)),
    ("leader-election", 10, 0, (16, 4, 50)),
    ("workload-high", 40, 50, (128, 6, 50)),
    ("workload-low", 100, 90, (128, 6, 50)),
    ("global-default", 20, 50, (128, 6, 50)),
)

_EVERYONE = ("system:unauthenticated", "system:authenticated")


def _groups(*names: str) -> list[Obj]:
    return [{"kind": "Group", "group": {"name": n}} for n in names]


def _users(*names: str) -> list[Obj]:
    return [{"kind": "User", "user": {"name": n}} for n in names]


def _system_accounts() -> list[Obj]:
    return [{"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}}]


def _resources(verbs: list[str], groups: list[str], names: list[str], *, cluster: bool) -> Obj:
    rule: Obj = {"verbs": verbs, "apiGroups": groups, "resources": names, "namespaces": ["*"]}
    if cluster:
        rule["clusterScope"] = True
    return rule


_ALL: Obj = {
    "resourceRules": [_resources(["*"], ["*"], ["*"], cluster=True)],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
}

# name, priority level, precedence, distinguisher, subjects, rules
SCHEMAS: tuple[tuple[str, str, int, str, list[Obj], Obj], ...] = (
    ("exempt", "exempt", 1, "", _groups("system:masters"), _ALL),
    ("catch-all", "catch-all", 10000, "ByUser", _groups(*_EVERYONE), _ALL),
    (
        "probes",
        "exempt",
        2,
        "",
        _groups(*_EVERYONE),
        {"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]},
    ),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        _users("system:kube-controller-manager", "system:kube-scheduler") + _system_accounts(),
        {
            "resourceRules": [
                _resources(["get", "create", "update"], ["coordination.k8s.io"], ["leases"], cluster=False)
            ]
        },
    ),
    (
        "system-node-high",
        "node-high",
        400,
        "ByUser",
        _groups("system:nodes"),
        {
            "resourceRules": [
                _resources(["*"], [""], ["nodes", "nodes/status"], cluster=True),
                _resources(["*"], ["coordination.k8s.io"], ["leases"], cluster=False),
            ]
        },
    ),
    ("system-nodes", "system", 500, "ByUser", _groups("system:nodes"), _ALL),
    (
        "kube-controller-manager",
        "workload-high",
        800,
        "ByNamespace",
        _users("system:kube-controller-manager"),
        _ALL,
    ),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", _users("system:kube-scheduler"), _ALL),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", _system_accounts(), _ALL),
    ("service-accounts", "workload-low", 9000, "ByUser", _groups("system:serviceaccounts"), _ALL),
    ("global-default", "global-default", 9900, "ByUser", _groups(*_EVERYONE), _ALL),
)


def level(name: str, shares: int, lendable: int, queuing: tuple[int, int, int] | None) -> Obj:
    response: Obj = {"type": "Reject"}
    if queuing is not None:
        queues, hand, length = queuing
        response = {"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}
    limited = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
    return _named(name, {"type": "Limited", "limited": limited})


def _named(name: str, spec: Obj) -> Obj:
    return {"metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec}


def schema(name: str, level_name: str, precedence: int, distinguisher: str, subjects: list[Obj], rules: Obj) -> Obj:
    spec: Obj = {
        "priorityLevelConfiguration": {"name": level_name},
        "matchingPrecedence": precedence,
        "rules": [{"subjects": subjects, **rules}],
    }
    if distinguisher:
        spec["distinguisherMethod"] = {"type": distinguisher}
    return _named(name, spec)


EXEMPT = _named("exempt", {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})


MANDATORY = ("exempt", "catch-all")


def fixed_level(name: str) -> Obj:
    """The spec of a mandatory level."""
    found: Obj = EXEMPT["spec"] if name == "exempt" else level(*next(one for one in LEVELS if one[0] == name))["spec"]
    return found


def is_fixed(spec: Obj, name: str) -> bool:
    return _same(spec, fixed_level(name), name)


def fixed_schema(name: str) -> Obj:
    found: Obj = schema(*next(one for one in SCHEMAS if one[0] == name))["spec"]
    return found


async def keep(services: Services) -> None:
    """Makes what is missing, and puts back what may not be otherwise."""
    levels = resource(f"prioritylevelconfigurations.{GROUP}")
    schemas = resource(f"flowschemas.{GROUP}")
    await asyncio.gather(services.registry(levels).open(), services.registry(schemas).open())
    await asyncio.gather(
        _keep(services, levels, EXEMPT),
        *(_keep(services, levels, level(*one)) for one in LEVELS),
        *(_keep(services, schemas, schema(*one)) for one in SCHEMAS),
    )


async def _keep(services: Services, r: Resource, wanted: Obj) -> None:
    name = wanted["metadata"]["name"]
    found = services.get(r, "", name)
    try:
        if found is None:
            await services.create(r, "", wanted)
        elif _is_ours(found) and not _same(found["spec"], wanted["spec"], name):
            await modify(services.registry(r), "", name, lambda obj: _put_back(obj, wanted, name))
    except ApiError as e:
        if e.code not in (404, 409):
            raise


def _is_ours(obj: Obj) -> bool:
    meta = obj["metadata"]
    if meta["name"] in MANDATORY:
        return True
    marked = (meta.get("annotations") or {}).get(AUTOUPDATE)
    return marked == "true" if marked in ("true", "false") else meta.get("generation", 1) == 1


def _same(spec: Obj, wanted: Obj, name: str) -> bool:
    if name == "exempt":  # how much it lends is the operator's
        spec, wanted = {**spec, "exempt": None}, {**wanted, "exempt": None}
    return spec == _complete(wanted)


def _complete(spec: Obj) -> Obj:
    """With what defaulting adds."""
    limited = spec.get("limited")
    return {**spec, "limited": {"lendablePercent": 0, **limited}} if limited else spec


def _put_back(obj: Obj, wanted: Obj, name: str) -> None:
    kept = obj["spec"].get("exempt") if name == "exempt" else None
    obj["spec"] = {**wanted["spec"], **({"exempt": kept} if kept else {})}
