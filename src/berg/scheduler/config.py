"""`KubeSchedulerConfiguration` v1: read, default, merge with the default plugins, check.

Source: pkg/scheduler/apis/config/v1 (defaults.go, default_plugins.go), apis/config/validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from berg.scheduler import plugins as builtin
from berg.scheduler.framework.interface import Plugin
from berg.scheduler.framework.profile import EXTENSION_POINTS, PluginSet, UnknownPlugin, implements
from berg.scheduler.state.podinfo import DEFAULT_SCHEDULER

Obj = dict[str, Any]
Registry = Mapping[str, type[Plugin]]

API_VERSION = "kubescheduler.config.k8s.io/v1"
KIND = "KubeSchedulerConfiguration"

_RESOURCES = [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 1}]
DEFAULT_ARGS: dict[str, Obj] = {
    "DefaultPreemption": {"minCandidateNodesPercentage": 10, "minCandidateNodesAbsolute": 100},
    "InterPodAffinity": {"hardPodAffinityWeight": 1},
    "NodeAffinity": {},
    "NodeResourcesBalancedAllocation": {"resources": _RESOURCES},
    "NodeResourcesFit": {"scoringStrategy": {"type": "LeastAllocated", "resources": _RESOURCES}},
    "PodTopologySpread": {"defaultingType": "System"},
    "VolumeBinding": {"bindTimeoutSeconds": 600},
}


@dataclass(slots=True)
class ProfileConfig:
    scheduler_name: str
    plugins: PluginSet
    percentage_of_nodes_to_score: int | None = None


@dataclass(slots=True)
class LeaderElection:
    enabled: bool = False
    lease_duration_s: float = 15
    renew_deadline_s: float = 10
    retry_period_s: float = 2
    namespace: str = "kube-system"
    name: str = "kube-scheduler"


@dataclass(slots=True)
class SchedulerConfig:
    profiles: list[ProfileConfig] = field(default_factory=lambda: [default_profile()])
    percentage_of_nodes_to_score: int = 0
    pod_initial_backoff_s: float = 1
    pod_max_backoff_s: float = 10
    leader_election: LeaderElection = field(default_factory=LeaderElection)
    client_qps: float = 0
    client_burst: int = 0
    kubeconfig: str = ""
    feature_gates: dict[str, bool] = field(default_factory=dict)
    registry: Registry = field(default_factory=dict)


class ConfigError(ValueError):
    """The file cannot be used; the message says where and why."""


def default_profile(registry: Registry | None = None) -> ProfileConfig:
    return ProfileConfig(DEFAULT_SCHEDULER, merge_plugins({}, {}, registry or {}))


def load(path: str, registry: Registry | None = None) -> SchedulerConfig:
    """Raises ConfigError."""
    import yaml

    try:
        with open(path, "rb") as f:
            document = yaml.load(f, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from e
    except yaml.YAMLError as e:
        raise ConfigError(f"{path}: {e}") from e
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: not a {KIND}")
    return parse(document, registry)


def parse(document: Obj, registry: Registry | None = None) -> SchedulerConfig:
    """Raises ConfigError."""
    if document.get("apiVersion") != API_VERSION or document.get("kind") != KIND:
        got = f"{document.get('apiVersion')}, Kind={document.get('kind')}"
        raise ConfigError(f"couldn't decode as {KIND}, got {got}: want {API_VERSION}, Kind={KIND}")
    registry = registry or {}
    profiles = document.get("profiles") or [{}]
    if len(profiles) == 1:
        profiles = [{"schedulerName": DEFAULT_SCHEDULER, **profiles[0]}]
    percentage = document.get("percentageOfNodesToScore") or 0
    _percentage("percentageOfNodesToScore", percentage)
    initial = document.get("podInitialBackoffSeconds", 1)
    highest = document.get("podMaxBackoffSeconds", 10)
    if initial <= 0:
        raise ConfigError(f"podInitialBackoffSeconds: Invalid value: {initial}: must be greater than 0")
    if highest < initial:
        raise ConfigError(
            f"podMaxBackoffSeconds: Invalid value: {highest}: must be greater than or equal to PodInitialBackoffSeconds"
        )
    if document.get("extenders"):
        raise ConfigError("extenders: Forbidden: extenders are not supported yet; write a plugin instead")
    client = document.get("clientConnection") or {}
    return SchedulerConfig(
        profiles=_profiles(profiles, registry),
        percentage_of_nodes_to_score=percentage,
        pod_initial_backoff_s=initial,
        pod_max_backoff_s=highest,
        leader_election=_leader_election(document.get("leaderElection") or {}),
        client_qps=client.get("qps") or 0,
        client_burst=client.get("burst") or 0,
        kubeconfig=client.get("kubeconfig") or "",
        registry=registry,
    )


def _percentage(where: str, n: int) -> None:
    if not 0 <= n <= 100:
        raise ConfigError(f"{where}: Invalid value: {n}: not in valid range [0-100]")


def _profiles(profiles: list[Obj], registry: Registry) -> list[ProfileConfig]:
    found: list[ProfileConfig] = []
    for i, p in enumerate(profiles):
        where = f"profiles[{i}]"
        name = p.get("schedulerName")
        if not name:
            raise ConfigError(f"{where}.schedulerName: Required value")
        if any(f.scheduler_name == name for f in found):
            raise ConfigError(f'{where}.schedulerName: Duplicate value: "{name}"')
        if (percentage := p.get("percentageOfNodesToScore")) is not None:
            _percentage(f"{where}.percentageOfNodesToScore", percentage)
        args: dict[str, Obj] = {}
        for j, one in enumerate(p.get("pluginConfig") or ()):
            if one["name"] in args:
                raise ConfigError(f'{where}.pluginConfig[{j}]: Duplicate value: "{one["name"]}"')
            args[one["name"]] = one.get("args") or {}
        try:
            merged = merge_plugins(p.get("plugins") or {}, args, registry)
        except UnknownPlugin as e:
            raise ConfigError(f"{where}.plugins: {e}") from e
        if len(merged.points["queueSort"]) != 1:
            raise ConfigError(f"{where}.plugins.queueSort: exactly one plugin must be enabled")
        if not merged.points["bind"]:
            raise ConfigError(f"{where}.plugins.bind: at least one bind plugin is needed")
        found.append(ProfileConfig(name, merged, percentage))
    return found


def _leader_election(c: Obj) -> LeaderElection:
    return LeaderElection(
        enabled=c.get("leaderElect", True),
        lease_duration_s=duration_s(c.get("leaseDuration", "15s")),
        renew_deadline_s=duration_s(c.get("renewDeadline", "10s")),
        retry_period_s=duration_s(c.get("retryPeriod", "2s")),
        namespace=c.get("resourceNamespace") or "kube-system",
        name=c.get("resourceName") or "kube-scheduler",
    )


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str) -> float:
    """Go's duration notation: `1m30s`. Raises ConfigError."""
    import re

    parts = re.findall(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ConfigError(f'time: invalid duration "{text}"')
    return float(sum(float(n) * _UNITS[u] for n, u in parts))


def merge_plugins(custom: Obj, args: dict[str, Obj], registry: Registry) -> PluginSet:
    """The default plugins with a profile's enabled and disabled ones: multiPoint expanded to every extension point
    that a plugin has; what an extension point says for itself goes first and wins."""
    multi = _multi_point(custom.get("multiPoint") or {})
    points: dict[str, list[tuple[str, int]]] = {}
    for point in EXTENSION_POINTS:
        own = custom.get(point) or {}
        enabled = [(e["name"], e.get("weight") or 0) for e in own.get("enabled") or ()]
        disabled = {d["name"] for d in own.get("disabled") or ()}
        specific, general = dict(enabled), dict(multi)
        for name in specific:
            _class(name, registry)
        # overridden ones first, in the order given here; then what multiPoint brings; then the others
        points[point] = [(n, w or general[n]) for n, w in enabled if n in general]
        if "*" not in disabled:
            points[point] += [
                (n, w)
                for n, w in multi
                if n not in specific and n not in disabled and implements(_class(n, registry), point)
            ]
        points[point] += [(n, w) for n, w in enabled if n not in general]
    names = {n for enabled in points.values() for n, _ in enabled}
    return PluginSet(points, {n: _with_defaults(n, args.get(n, {})) for n in names})


def _multi_point(custom: Obj) -> list[tuple[str, int]]:
    enabled = [(e["name"], e.get("weight") or 0) for e in custom.get("enabled") or ()]
    disabled = {d["name"] for d in custom.get("disabled") or ()}
    mine = dict(enabled)
    merged: list[tuple[str, int]] = []
    if "*" not in disabled:
        for name, weight in builtin.DEFAULTS:
            if name in mine:
                merged.append((name, mine.pop(name) or weight))
            elif name not in disabled:
                merged.append((name, weight))
    return merged + [(n, w) for n, w in enabled if n in mine]


def _class(name: str, registry: Registry) -> type[Plugin]:
    found = builtin.find(name, dict(registry))
    if found is None:
        raise UnknownPlugin(f'plugin "{name}" does not exist')
    return found


def _with_defaults(name: str, args: Obj) -> Obj:
    merged = {**DEFAULT_ARGS.get(name, {}), **args}
    merged.pop("apiVersion", None)
    merged.pop("kind", None)
    return merged
