"""The extension points, over columns.

A plugin is a class with a `name` and the extension points it has as mixins. It differs from upstream's shape in one
way: `filter` and `score` are asked about many nodes at once. `rows` names them, and the answer is an array aligned
with `rows`. A filter answers 0 for a node that passes and otherwise a code of its own, which `explain` turns into a
status when somebody wants to know; None means that the plugin has nothing to say about this pod (upstream's Skip).

`scope` is a promise that lets pods of one template share work:

- NODE: the answer for a row depends on the pod's class and the node object;
- PODS: … and on the pods and nominations of that row;
- CLUSTER: … on anything. Never cached.

NODE and PODS answers must depend on nothing of the pod but what `PodClass.row_signature` covers: not on its name,
namespace, labels, owner, or rules about other pods. (Upstream's batching asks plugins for the like: SignPod.)

Plugins written for one node at a time use `NodeFilter` and `NodeScore` (see `framework/pernode.py`).

Source: k8s.io/kube-scheduler framework/interface.go.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from berg.scheduler.framework.status import Status
from berg.scheduler.state.arrays import Bools, Floats, Ints, Rows
from berg.scheduler.state.podinfo import PodClass, PodInfo

if TYPE_CHECKING:
    from berg.machinery.clock import Clock
    from berg.scheduler.framework.events import EventWithHint
    from berg.scheduler.preemption import UnderWay
    from berg.scheduler.state.objects import Objects
    from berg.scheduler.state.snapshot import Snapshot

Obj = dict[str, Any]

MAX_SCORE = 100


class Scope(IntEnum):
    NODE = 1
    PODS = 2
    CLUSTER = 3


@dataclass(slots=True)
class Cycle:
    """One attempt to place one pod: upstream's CycleState. `data` is the plugins', by plugin name.

    `filters` are the profile's filters that have something to say about the pod, for who asks them again.
    """

    pod: PodInfo
    snapshot: Snapshot
    data: dict[str, Any] = field(default_factory=dict)
    filters: list[Filter] = field(default_factory=list)
    rng: random.Random = field(default_factory=random.Random)

    @property
    def cls(self) -> PodClass:
        return self.pod.cls


class Handle(Protocol):
    """What a plugin is given of its surroundings."""

    @property
    def objects(self) -> Objects:
        """Read-only views of services, claims, volumes, …"""
        ...

    @property
    def clock(self) -> Clock: ...

    @property
    def client(self) -> Any:
        """The API client; None in tests of the pure core. Only Bind, PreBind and PostFilter's effects use it."""
        ...

    async def changed(self, kind: str) -> None:
        """Until an object of that kind changes in `objects`."""
        ...

    def preemption_of(self, uid: str) -> UnderWay | None:
        """The preemption that was begun for a pod, until the pod has its node."""
        ...

    def waiting_pod(self, uid: str) -> Any:
        """The WaitingPod held by Permit, or None."""
        ...


class Plugin:
    name: ClassVar[str] = ""

    def __init__(self, args: Obj, handle: Handle) -> None:
        """`args` is the pluginConfig's, with upstream's defaults filled in."""
        self.args = args
        self.handle = handle

    def events(self) -> list[EventWithHint]:
        """What may make a pod schedulable that this plugin rejected. Empty: nothing but time."""
        return []


class QueueSort(Plugin):
    def sort_key(self, pod: PodInfo, timestamp: float) -> Any:
        """Smaller goes first."""
        raise NotImplementedError


class PreEnqueue(Plugin):
    def pre_enqueue(self, pod: PodInfo) -> Status | None:
        raise NotImplementedError


class PreFilter(Plugin):
    def pre_filter(self, cycle: Cycle) -> PreFilterResult | Status | None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class PreFilterResult:
    """Only these nodes, by name, need to be looked at."""

    nodes: frozenset[str]


class Filter(Plugin):
    scope: ClassVar[Scope] = Scope.CLUSTER

    def applies(self, cls: PodClass) -> bool:
        """False when the filter passes every node for any pod of the class, whatever happens."""
        return True

    def filter(self, cycle: Cycle, rows: Rows) -> Ints | None:
        raise NotImplementedError

    def explain(self, cycle: Cycle, code: int) -> Status:
        raise NotImplementedError


class PostFilter(Plugin):
    def post_filter(self, cycle: Cycle, diagnosis: Any) -> tuple[str | None, Status]:
        """(nominated node, status): the node when the status is success, "" to clear a nomination, None to leave it."""
        raise NotImplementedError


class Score(Plugin):
    score_scope: ClassVar[Scope] = Scope.CLUSTER
    normalizes: ClassVar[bool] = False

    def scores_for(self, cls: PodClass) -> bool:
        """False when every node always scores the same for pods of the class."""
        return True

    def pre_score(self, cycle: Cycle, feasible: Rows) -> Status | None:
        return None

    def score(self, cycle: Cycle, rows: Rows) -> Ints | None:
        raise NotImplementedError

    def normalize(self, cycle: Cycle, scores: Ints) -> Ints:
        """`scores` of the feasible nodes only, as `score` gave them; the answer lies within 0 and MAX_SCORE."""
        return scores


class Reserve(Plugin):
    def reserve(self, cycle: Cycle, node: str) -> Status | None:
        raise NotImplementedError

    def unreserve(self, cycle: Cycle, node: str) -> None:
        """Must be idempotent; called for every Reserve plugin in reverse order when a later step fails."""
        raise NotImplementedError


class Permit(Plugin):
    def permit(self, cycle: Cycle, node: str) -> tuple[Status | None, float]:
        """(None, 0) to go on; (WAIT, timeout in seconds) to wait for `allow` or `reject`."""
        raise NotImplementedError


class PreBind(Plugin):
    def pre_bind_needed(self, cycle: Cycle) -> bool:
        """False lets the cycle skip the plugin (upstream's PreBindPreFlight)."""
        return True

    async def pre_bind(self, cycle: Cycle, node: str) -> Status | None:
        raise NotImplementedError


class Bind(Plugin):
    async def bind(self, cycle: Cycle, node: str) -> Status | None:
        """SKIP leaves it to the next one."""
        raise NotImplementedError


class PostBind(Plugin):
    def post_bind(self, cycle: Cycle, node: str) -> None:
        raise NotImplementedError


def default_normalize(scores: Ints, *, reverse: bool = False) -> Ints:
    """Scales to 0…MAX_SCORE by the largest. Source: plugins/helper/normalize_score.go."""
    top = int(scores.max()) if len(scores) else 0
    if top == 0:
        return scores + MAX_SCORE if reverse else scores
    scaled = MAX_SCORE * scores // top
    return MAX_SCORE - scaled if reverse else scaled


__all__ = [
    "MAX_SCORE",
    "Bind",
    "Bools",
    "Cycle",
    "Filter",
    "Floats",
    "Handle",
    "Ints",
    "Permit",
    "Plugin",
    "PostBind",
    "PostFilter",
    "PreBind",
    "PreEnqueue",
    "PreFilter",
    "PreFilterResult",
    "QueueSort",
    "Reserve",
    "Rows",
    "Scope",
    "Score",
    "default_normalize",
]
