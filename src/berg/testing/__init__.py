"""Kubernetes for tests: a whole cluster in one event loop (`Cluster`), simulated nodes (`SimNodes`, `SimConfig`), and
pytest fixtures `cluster` and `kubeconfig` (`berg.testing.plugin`). Names are imported when they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from berg.testing.cluster import Cluster
    from berg.testing.simnode import SimConfig
    from berg.testing.simnodes import SimNodes

_WHERE = {"Cluster": "cluster", "SimConfig": "simnode", "SimNodes": "simnodes"}

__all__ = ["Cluster", "SimConfig", "SimNodes"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
