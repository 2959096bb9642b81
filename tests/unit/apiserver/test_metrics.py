"""What is counted, and what is not: judged by what upstream's metrics say after the same requests."""

from __future__ import annotations

import asyncio
import gc

from prometheus_client.parser import text_string_to_metric_families

from berg.apiserver.http.message import User
from tests.unit.apiserver.served_api import Served

CM = "/api/v1/namespaces/default/configmaps"
JOE = User("joe", groups=("system:authenticated",))
_HARDLY_METRICS = {"go", "process", "scrape"}


async def counts(served: Served, family: str, **wanted: str) -> dict[tuple[str, ...], float]:
    """The values of a family by the labels that are asked for with `=""`-less names; others must be as given."""
    text = (await served.raw("GET", "/metrics")).body.decode()
    found: dict[tuple[str, ...], float] = {}
    for parsed in text_string_to_metric_families(text):
        for sample in parsed.samples:
            if sample.name == family and all(sample.labels[k] == v for k, v in wanted.items()):
                key = tuple(sample.labels[k] for k in sorted(sample.labels) if k not in wanted)
                found[key] = sample.value
    return found


async def requests(served: Served, **wanted: str) -> dict[tuple[str, str], float]:
    """(code, verb) → how many."""
    of = {"component": "apiserver", "group": "", "resource": "configmaps", "subresource": "", "version": "v1"}
    found = await counts(served, "apiserver_request_total", **{"dry_run": "", **of, **wanted})
    return {(key[0], key[-1]): value for key, value in found.items()}


async def test_requests_are_told_apart_as_upstream_tells_them(served: Served) -> None:
    await served.create(CM, {"metadata": {"name": "a"}})
    await served.ask("DELETE", f"{CM}?labelSelector=x")
    await served.ask("GET", f"{CM}?fieldSelector=metadata.name%3Da")
    patch = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}
    await served.patch(f"{CM}/b?fieldManager=m", patch, "application/apply-patch+yaml")
    await served.ask("POST", f"{CM}?dryRun=All", {"metadata": {"name": "dry"}})
    assert await requests(served, scope="resource") == {("201", "POST"): 1, ("201", "APPLY"): 1}
    assert await requests(served, scope="namespace") == {("200", "DELETE"): 1, ("200", "LIST"): 1}
    assert await requests(served, scope="resource", dry_run="All") == {("201", "POST"): 1}
    sizes = await counts(served, "apiserver_response_sizes_count", resource="configmaps", version="v1")
    assert {key[-1] for key in sizes} == {"LIST"}, "only of reads"
    bodies = await counts(served, "apiserver_request_body_size_bytes_count", group="", resource="configmaps")
    assert bodies == {("create",): 2, ("delete_collection",): 1, ("patch",): 1}


async def test_what_is_refused_before_it_is_looked_at_is_not_counted(served: Served) -> None:
    code, _ = await served.ask("GET", CM, user=JOE)
    assert code == 403
    await served.raw("GET", "/nothing/here")
    assert await requests(served) == {}
    assert await counts(served, "authorization_attempts_total", result="no-opinion") == {(): 1}


async def test_a_watch_is_counted_when_it_is_over(served: Served) -> None:
    await served.create(CM, {"metadata": {"name": "a"}})
    stream = (await served.raw("GET", f"{CM}?watch=1")).stream
    assert stream is not None
    async with asyncio.timeout(30):
        await anext(stream)
        await served.create(CM, {"metadata": {"name": "b"}})
        await anext(stream)
    assert await requests(served) == {("201", "POST"): 2}
    assert await counts(served, "apiserver_init_events_total", group="", resource="configmaps") == {(): 1}
    assert await counts(served, "apiserver_watch_events_total", group="", resource="configmaps") == {("v1",): 2}
    await stream.aclose()  # type: ignore[attr-defined]
    del stream
    gc.collect()
    assert (await requests(served))["200", "WATCH"] == 1
    sli = await counts(served, "apiserver_request_sli_duration_seconds_count", resource="configmaps")
    assert {key[-2] for key in sli} == {"POST"}, "no objective is about watches"


async def test_time_in_seats_adds_up(served: Served) -> None:
    """Histograms of every nanosecond have as many observations as there were."""
    name = "apiserver_flowcontrol_priority_level_seat_utilization"
    first = await counts(served, f"{name}_count", priority_level="exempt")
    second = await counts(served, f"{name}_count", priority_level="exempt")
    assert 0 < first["executing",] < second["executing",]
    (zero,) = (await counts(served, f"{name}_bucket", priority_level="exempt", le="0")).values()
    assert zero > 0, "for some of it nothing ran"


async def test_every_family_says_what_it_is(served: Served) -> None:
    """As `promtool check metrics` wants it, but for names that upstream has given."""
    families = list(text_string_to_metric_families((await served.raw("GET", "/metrics")).body.decode()))
    assert len(families) > 70
    for family in families:
        assert family.documentation, family.name
        level = family.documentation.partition("]")[0].lstrip("[")
        known = family.name.partition("_")[0] in _HARDLY_METRICS
        assert known or level in ("STABLE", "BETA", "ALPHA"), family.name
        assert family.type != "unknown", family.name


async def test_stable_families_are_there(served: Served) -> None:
    await served.create(CM, {"metadata": {"name": "a"}})
    families = text_string_to_metric_families((await served.raw("GET", "/metrics")).body.decode())
    stable = {f.name for f in families if f.documentation.startswith("[STABLE]")}
    assert stable >= {
        "apiserver_admission_controller_admission_duration_seconds",
        "apiserver_admission_step_admission_duration_seconds",
        "apiserver_current_inflight_requests",
        "apiserver_request",
        "apiserver_request_duration_seconds",
        "apiserver_storage_objects",
    }
