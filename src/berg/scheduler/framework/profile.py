"""A profile: the plugins of one scheduler name, by extension point.

`plugins` is a `KubeSchedulerConfiguration` profile's, already merged with the defaults (see `config`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from berg.scheduler import plugins as builtin
from berg.scheduler.framework import interface as fw

Obj = dict[str, Any]
P = TypeVar("P", bound=fw.Plugin)

EXTENSION_POINTS: dict[str, type[fw.Plugin]] = {
    "queueSort": fw.QueueSort,
    "preEnqueue": fw.PreEnqueue,
    "preFilter": fw.PreFilter,
    "filter": fw.Filter,
    "postFilter": fw.PostFilter,
    "preScore": fw.Score,
    "score": fw.Score,
    "reserve": fw.Reserve,
    "permit": fw.Permit,
    "preBind": fw.PreBind,
    "bind": fw.Bind,
    "postBind": fw.PostBind,
}


@dataclass(slots=True)
class PluginSet:
    """For each extension point the enabled plugins in order, with weights; and each plugin's arguments."""

    points: dict[str, list[tuple[str, int]]]
    args: dict[str, Obj] = field(default_factory=dict)


class UnknownPlugin(ValueError):
    pass


class Profile:
    """Instances of a profile's plugins. One plugin has one instance for all its extension points."""

    def __init__(
        self,
        name: str,
        plugins: PluginSet,
        handle: fw.Handle,
        registry: Mapping[str, type[fw.Plugin]] | None = None,
    ) -> None:
        self.name = name
        self._instances: dict[str, fw.Plugin] = {}
        more = dict(registry or {})
        for enabled in plugins.points.values():
            for plugin, _ in enabled:
                if plugin not in self._instances:
                    found = builtin.find(plugin, more)
                    if found is None:
                        raise UnknownPlugin(f'plugin "{plugin}" does not exist')
                    self._instances[plugin] = found(plugins.args.get(plugin, {}), handle)
        self._points = plugins.points
        self.queue_sort = self._at("queueSort", fw.QueueSort)
        self.pre_enqueue = self._at("preEnqueue", fw.PreEnqueue)
        self.pre_filter = self._at("preFilter", fw.PreFilter)
        self.filters = self._at("filter", fw.Filter)
        self.post_filter = self._at("postFilter", fw.PostFilter)
        self.scores: list[tuple[fw.Score, int]] = [
            (p, dict(plugins.points["score"])[p.name] or 1) for p in self._at("score", fw.Score)
        ]
        self.reserve = self._at("reserve", fw.Reserve)
        self.permit = self._at("permit", fw.Permit)
        self.pre_bind = self._at("preBind", fw.PreBind)
        self.bind = self._at("bind", fw.Bind)
        self.post_bind = self._at("postBind", fw.PostBind)

    def _at(self, point: str, kind: type[P]) -> list[P]:
        found = (self._instances[name] for name, _ in self._points.get(point, ()))
        return [p for p in found if isinstance(p, kind)]

    @property
    def plugins(self) -> list[fw.Plugin]:
        return list(self._instances.values())


def implements(plugin: type[fw.Plugin], point: str) -> bool:
    return issubclass(plugin, EXTENSION_POINTS[point])
