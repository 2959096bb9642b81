"""Pods, as the scheduler sees them: parsed once per template.

`PodClass` is everything about a pod that decides where it may go and that its siblings share: two pods with the
same signature have the same `PodClass`, so whatever is computed for the class serves both. `PodInfo` is one pod.

Both are immutable for the scheduler; a changed pod becomes a new `PodInfo`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from berg.machinery.labels import NOTHING, Selector
from berg.scheduler.state.requests import Amounts, nonzero_requests, pod_requests

Obj = dict[str, Any]

DEFAULT_SCHEDULER = "default-scheduler"
# Volumes that decide nothing by themselves. A service account's token volume has a random name in every pod, so
# pods of one template differ by it.
_VOLUMES_THAT_MATTER = (
    "persistentVolumeClaim",
    "ephemeral",
    "csi",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "iscsi",
    "rbd",
    "image",
)


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Toleration:
    key: str
    operator: str
    value: str
    effect: str

    def tolerates(self, taint: Taint) -> bool:
        """Source: k8s.io/api core/v1 toleration.go, KEP-5471 for Gt and Lt."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        match self.operator:
            case "" | "Equal":
                return self.value == taint.value
            case "Exists":
                return True
            case "Lt" | "Gt":
                try:
                    want, have = int(self.value), int(taint.value)
                except ValueError:
                    return False
                return have < want if self.operator == "Lt" else have > want
        return False


@dataclass(frozen=True, slots=True)
class Term:
    """One pod affinity term. `id` is equal for terms that mean the same."""

    id: bytes
    namespaces: frozenset[str]
    namespace_selector: Selector
    selector: Selector
    topology_key: str

    def matches(self, namespace: str, labels: dict[str, str], namespace_labels: dict[str, str]) -> bool:
        return (
            namespace in self.namespaces or self.namespace_selector.matches(namespace_labels)
        ) and self.selector.matches(labels)


@dataclass(frozen=True, slots=True)
class Spread:
    """One topology spread constraint; `hard` is DoNotSchedule."""

    max_skew: int
    topology_key: str
    selector: Selector
    selector_id: bytes
    hard: bool
    min_domains: int = 1
    honor_affinity: bool = True
    honor_taints: bool = False


@dataclass(frozen=True, slots=True)
class HostPort:
    protocol: str
    ip: str
    port: int

    def conflicts(self, other: HostPort) -> bool:
        if self.port != other.port or self.protocol != other.protocol:
            return False
        return self.ip == other.ip or "0.0.0.0" in (self.ip, other.ip)


@dataclass(slots=True, eq=False)
class PodClass:
    """What pods of one template share. `memo` is for plugins: facts about the class that never change."""

    signature: bytes
    row_signature: bytes
    """of what decides about a node by itself: not namespace, labels, owner, and rules about other pods"""
    namespace: str
    labels: dict[str, str]
    spec: Obj
    scheduler_name: str
    priority: int
    preempts: bool
    requests: Amounts
    nonzero: tuple[int, int]
    tolerations: tuple[Toleration, ...]
    host_ports: tuple[HostPort, ...]
    images: tuple[str, ...]
    containers: int
    volumes: tuple[Obj, ...]
    affinity: tuple[Term, ...]
    anti_affinity: tuple[Term, ...]
    preferred_affinity: tuple[tuple[int, Term], ...]
    preferred_anti_affinity: tuple[tuple[int, Term], ...]
    spread: tuple[Spread, ...]
    owner: Obj | None
    resource_claims: tuple[Obj, ...] = ()
    features: tuple[str, ...] = ()
    """what the kubelet must have declared (KEP-5328)"""
    label_class: Any = None
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def node_affinity(self) -> Obj:
        return (self.spec.get("affinity") or {}).get("nodeAffinity") or {}

    def tolerates(self, taint: Taint) -> bool:
        return any(t.tolerates(taint) for t in self.tolerations)


@dataclass(slots=True, eq=False)
class PodInfo:
    """One pod. `obj` is the informer's, shared: never changed here."""

    key: str
    uid: str
    cls: PodClass
    obj: Obj
    node: str
    nominated_node: str
    terminating: bool

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return self.cls.namespace

    @property
    def priority(self) -> int:
        return self.cls.priority

    @property
    def start_time(self) -> str:
        """When the kubelet took it, as RFC 3339; a pod without is the youngest."""
        return (self.obj.get("status") or {}).get("startTime") or "9999"


class PodParser:
    """Makes `PodInfo`s; remembers the classes in use. `sweep()` forgets those that no pod has."""

    def __init__(self) -> None:
        self._classes: dict[bytes, PodClass] = {}

    def parse(self, pod: Obj) -> PodInfo:
        meta = pod["metadata"]
        spec = pod["spec"]
        status = pod.get("status") or {}
        signature = _signature(meta, spec, status)
        cls = self._classes.get(signature)
        if cls is None:
            cls = self._classes[signature] = _pod_class(signature, pod)
        namespace = meta.get("namespace") or ""
        return PodInfo(
            key=f"{namespace}/{meta['name']}",
            uid=meta.get("uid") or f"{namespace}/{meta['name']}",
            cls=cls,
            obj=pod,
            node=spec.get("nodeName") or "",
            nominated_node=status.get("nominatedNodeName") or "",
            terminating=bool(meta.get("deletionTimestamp")),
        )

    def __len__(self) -> int:
        return len(self._classes)

    def sweep(self, in_use: set[bytes]) -> None:
        self._classes = {s: c for s, c in self._classes.items() if s in in_use}


def _signature(meta: Obj, spec: Obj, status: Obj) -> bytes:
    get = spec.get
    owners = meta.get("ownerReferences")
    owner = owners[0].get("uid") if owners else None
    return orjson.dumps(
        (
            meta.get("namespace"),
            meta.get("labels"),
            owner,
            get("schedulerName"),
            get("affinity"),
            get("topologySpreadConstraints"),
            get("resourceClaims"),
            _about_nodes(spec),
            [v if "ephemeral" not in v else (v, meta.get("name")) for v in volumes_that_matter(spec)],
            [s.get("resources") or s.get("allocatedResources") for s in status.get("containerStatuses") or ()],
        ),
        option=orjson.OPT_SORT_KEYS,
    )


def _about_nodes(spec: Obj) -> tuple[Any, ...]:
    """Everything that is weighed against a node alone, but for affinity."""
    get = spec.get
    return (
        get("priority"),
        get("preemptionPolicy"),
        get("nodeSelector"),
        get("tolerations"),
        get("hostNetwork"),
        _features(spec),
        get("overhead"),
        get("resources"),
        [(c.get("image"), c.get("resources"), c.get("ports")) for c in get("containers") or ()],
        [
            (c.get("image"), c.get("resources"), c.get("ports"), c.get("restartPolicy"))
            for c in get("initContainers") or ()
        ],
    )


def _features(spec: Obj) -> list[str]:
    found: list[str] = []
    for c in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        if any(r.get("action") == "RestartAllContainers" for r in c.get("restartPolicyRules") or ()):
            found = ["RestartAllContainersOnContainerExits"]
            break
    if spec.get("hostNetwork") and spec.get("hostUsers") is False:
        found.append("UserNamespacesHostNetworkSupport")
    return found


def _row_signature(pod: Obj) -> bytes:
    spec, statuses = pod["spec"], (pod.get("status") or {}).get("containerStatuses") or ()
    return orjson.dumps(
        (
            _about_nodes(spec),
            (spec.get("affinity") or {}).get("nodeAffinity"),
            [v["image"].get("reference") for v in spec.get("volumes") or () if v.get("image")],
            [s.get("resources") or s.get("allocatedResources") for s in statuses],
        ),
        option=orjson.OPT_SORT_KEYS,
    )


def volumes_that_matter(spec: Obj) -> list[Obj]:
    """Those that have a say in where a pod may go."""
    return [v for v in spec.get("volumes") or () if any(k in v for k in _VOLUMES_THAT_MATTER)]


def _pod_class(signature: bytes, pod: Obj) -> PodClass:
    meta, spec = pod["metadata"], pod["spec"]
    namespace = meta.get("namespace") or ""
    labels = dict(meta.get("labels") or {})
    affinity = spec.get("affinity") or {}
    together, apart = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}
    required, preferred = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    )
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    volumes = tuple(volumes_that_matter(spec))
    owners = [o for o in meta.get("ownerReferences") or () if o.get("controller")]

    def terms(of: Obj) -> tuple[Term, ...]:
        return tuple(parse_term(t, namespace) for t in of.get(required) or ())

    def weighted(of: Obj) -> tuple[tuple[int, Term], ...]:
        return tuple((t["weight"], parse_term(t["podAffinityTerm"], namespace)) for t in of.get(preferred) or ())

    return PodClass(
        signature=signature,
        row_signature=_row_signature(pod),
        namespace=namespace,
        labels=labels,
        spec=spec,
        scheduler_name=spec.get("schedulerName") or DEFAULT_SCHEDULER,
        priority=spec.get("priority") or 0,
        preempts=spec.get("preemptionPolicy") != "Never",
        requests=pod_requests(pod),
        nonzero=nonzero_requests(pod),
        tolerations=tuple(
            Toleration(t.get("key", ""), t.get("operator", ""), t.get("value", ""), t.get("effect", ""))
            for t in spec.get("tolerations") or ()
        ),
        host_ports=tuple(_host_ports(spec)),
        images=tuple(c.get("image") or "" for c in containers)
        + tuple(v["image"].get("reference") or "" for v in volumes if v.get("image")),
        containers=len(containers),
        volumes=volumes,
        affinity=terms(together),
        anti_affinity=terms(apart),
        preferred_affinity=weighted(together),
        preferred_anti_affinity=weighted(apart),
        spread=tuple(parse_spread(c, labels) for c in spec.get("topologySpreadConstraints") or ()),
        owner=owners[0] if owners else None,
        resource_claims=tuple(spec.get("resourceClaims") or ()),
        features=tuple(_features(spec)),
    )


def _host_ports(spec: Obj) -> list[HostPort]:
    """Also those of init containers that keep running."""
    found: list[HostPort] = []
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for c in [*(spec.get("containers") or ()), *sidecars]:
        found += [
            HostPort(p.get("protocol") or "TCP", p.get("hostIP") or "0.0.0.0", p["hostPort"])
            for p in c.get("ports") or ()
            if p.get("hostPort")
        ]
    return found


def selector_id(selector: Obj | None) -> bytes:
    return orjson.dumps(selector, option=orjson.OPT_SORT_KEYS)


def parse_term(term: Obj, namespace: str) -> Term:
    """A term that names no namespaces and no selector of them is about the pod's own namespace."""
    names = frozenset(term.get("namespaces") or ())
    of_namespaces = term.get("namespaceSelector")
    if not names and of_namespaces is None:
        names = frozenset((namespace,))
    selector = term.get("labelSelector")
    key = term.get("topologyKey") or ""
    return Term(
        id=orjson.dumps((sorted(names), of_namespaces, selector, key), option=orjson.OPT_SORT_KEYS),
        namespaces=names,
        namespace_selector=Selector.of(of_namespaces),
        selector=Selector.of(selector),
        topology_key=key,
    )


def parse_spread(constraint: Obj, labels: dict[str, str]) -> Spread:
    wanted = constraint.get("labelSelector")
    keys = [k for k in constraint.get("matchLabelKeys") or () if k in labels]
    if keys and wanted is not None:
        more = [{"key": k, "operator": "In", "values": [labels[k]]} for k in keys]
        wanted = {**wanted, "matchExpressions": [*(wanted.get("matchExpressions") or ()), *more]}
    selector = Selector.of(wanted)
    if selector.everything:  # upstream counts nothing for an empty selector
        selector, wanted = NOTHING, None
    return Spread(
        max_skew=constraint.get("maxSkew") or 1,
        topology_key=constraint.get("topologyKey") or "",
        selector=selector,
        selector_id=selector_id(wanted),
        hard=constraint.get("whenUnsatisfiable") != "ScheduleAnyway",
        min_domains=constraint.get("minDomains") or 1,
        honor_affinity=constraint.get("nodeAffinityPolicy") != "Ignore",
        honor_taints=constraint.get("nodeTaintsPolicy") == "Honor",
    )
