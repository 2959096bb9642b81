from typing import Any

from berg.controllers.endpointslice_figures import Figures
from berg.machinery.metrics import Registry

Obj = dict[str, Any]


def endpoints(*names: int) -> list[Obj]:
    return [{"addresses": [f"10.0.0.{n}"]} for n in names]


def test_slices_and_what_a_sync_changes() -> None:
    registry = Registry()
    before: list[Obj] = [{"endpoints": endpoints(1, 2, 3)}]
    services: list[Obj] = [{"spec": {"trafficDistribution": "PreferSameNode"}}, {"spec": {}}]
    figures = Figures(registry, lambda: before, lambda: services)
    figures.synced("default/a", before, [endpoints(3, 4, 5, 6)])
    figures.synced("default/b", [], [endpoints(*range(101)), []])
    text = registry.text()
    prefix = "endpoint_slice_controller"
    for line in (
        "num_endpoint_slices 1",
        "endpoints_desired 105",
        "desired_endpoint_slices 4",  # one, two, and an empty one
        'services_count_by_traffic_distribution{traffic_distribution="PreferSameNode"} 1',
        "endpoints_added_per_sync_sum 104",
        "endpoints_removed_per_sync_sum 2",
        "endpoints_removed_per_sync_count 2",
    ):
        assert f"\n{prefix}_{line}\n" in text, line
    figures.gone("default/b")
    assert f"\n{prefix}_endpoints_desired 4\n" in registry.text()
