"""Zones and how fast nodes in them may be given up. No I/O.

A zone where many nodes fail at once is more likely cut off than broken: its nodes are evicted more slowly, or not
at all when it is small. When every zone is down no one is evicted.

Source: pkg/controller/nodelifecycle, handleDisruption and ComputeZoneState.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from berg.controllers.config import Config
from berg.machinery import meta
from berg.machinery.clock import Clock
from berg.machinery.status import Obj


def zone_of(node: Obj) -> str:
    labels = meta.labels(node)
    region, zone = labels.get("topology.kubernetes.io/region", ""), labels.get("topology.kubernetes.io/zone", "")
    return f"{region}:\0:{zone}" if region or zone else ""


@dataclass(slots=True)
class _Zone:
    ready: dict[str, bool] = field(default_factory=dict)
    down: int = 0
    """how many of `ready` are not"""
    state: str = "Normal"
    next_at: float = float("-inf")
    """when the next node may be evicted"""


class Zones:
    def __init__(self, config: Config, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._zones: dict[str, _Zone] = {}
        self._zone: dict[str, str] = {}
        self._pending: set[str] = set()

    def note(self, node: str, zone: str, ready: bool) -> None:
        if self._zone.get(node, zone) != zone:
            self.forget(node)
        was_down = self.all_down()
        self._zone[node] = zone
        z = self._zones.setdefault(zone, _Zone())
        z.down += (not ready) - (not z.ready.get(node, True))
        z.ready[node] = ready
        self._settle(z, was_down)

    def forget(self, node: str) -> None:
        zone = self._zone.pop(node, None)
        if zone is None:
            return
        was_down = self.all_down()
        z = self._zones[zone]
        z.down -= not z.ready.pop(node, True)
        self._settle(z, was_down)
        if not z.ready:
            del self._zones[zone]

    def _settle(self, z: _Zone, was_down: bool) -> None:
        state = self._state(z)
        if state != z.state:
            z.state = state
            self._pending |= z.ready.keys()
        if self.all_down() != was_down:
            for other in self._zones.values():
                self._pending |= other.ready.keys()

    def changed(self) -> set[str]:
        """Nodes whose zone's state, or the state of all, changed since this was last asked."""
        pending, self._pending = self._pending, set()
        return pending

    def _state(self, z: _Zone) -> str:
        if z.down and z.down == len(z.ready):
            return "FullDisruption"
        if z.down > 2 and z.down / len(z.ready) >= self._config.unhealthy_zone_threshold:
            return "PartialDisruption"
        return "Normal"

    def all_down(self) -> bool:
        return bool(self._zones) and all(z.state == "FullDisruption" for z in self._zones.values())

    def eviction_in(self, node: str) -> float | None:
        """0: now, and this takes the turn; else seconds to wait; None: not while the zone is as it is."""
        z = self._zones.get(self._zone.get(node, ""))
        if z is None:
            return None
        rate = self._config.node_eviction_rate
        if z.state == "PartialDisruption":
            big = len(z.ready) > self._config.large_cluster_size_threshold
            rate = self._config.secondary_node_eviction_rate if big else 0.0
        if rate <= 0:
            return None
        now = self._clock.monotonic()
        if z.next_at > now:
            return z.next_at - now
        z.next_at = now + 1 / rate
        return 0.0
