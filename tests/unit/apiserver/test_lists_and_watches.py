"""Lists by revision, page and selector; watches from a revision."""

from __future__ import annotations

import orjson

from tests.unit.apiserver.served_api import Served

MAPS = "/api/v1/namespaces/default/configmaps"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"


async def fill(served: Served, *names: str) -> list[int]:
    made = [await served.create(MAPS, {"metadata": {"name": n, "labels": {"n": n}}}) for n in names]
    return [int(o["metadata"]["resourceVersion"]) for o in made]


def names(listed: dict) -> list[str]:
    return [i["metadata"]["name"] for i in listed["items"]]


async def test_pages_are_of_one_moment(served: Served) -> None:
    await fill(served, "a", "b", "c", "d")
    first = await served.get(f"{MAPS}?limit=2")
    assert names(first) == ["a", "b"] and first["metadata"]["remainingItemCount"] == 2
    await served.ask("DELETE", f"{MAPS}/c")
    await fill(served, "e")
    second = await served.get(f"{MAPS}?limit=2&continue={first['metadata']['continue']}")
    assert names(second) == ["c", "d"] and "continue" not in second["metadata"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_a_token_too_old_says_how_to_go_on(served: Served) -> None:
    await fill(served, "a", "b", "c")
    first = await served.get(f"{MAPS}?limit=1")
    await fill(served, "d")
    store = served.server.services.store
    await store.compact(store.revision)
    code, gone = await served.ask("GET", f"{MAPS}?limit=9&continue={first['metadata']['continue']}")
    assert (code, gone["reason"]) == (410, "Expired")
    rest = await served.get(f"{MAPS}?limit=9&continue={gone['metadata']['continue']}")
    assert names(rest) == ["b", "c", "d"]


async def test_exact_revisions(served: Served) -> None:
    first, _, _ = await fill(served, "a", "b", "c")
    exact = await served.get(f"{MAPS}?resourceVersion={first}&resourceVersionMatch=Exact")
    assert names(exact) == ["a"]
    assert names(await served.get(f"{MAPS}?resourceVersion={first}")) == ["a", "b", "c"]
    assert (await served.ask("GET", f"{MAPS}?resourceVersionMatch=Exact"))[0] == 422
    assert (await served.ask("GET", f"{MAPS}?continue=xx"))[0] == 400


async def test_selectors(served: Served) -> None:
    await fill(served, "a", "b", "c")
    assert names(await served.get(f"{MAPS}?labelSelector=n+in+(a,c)")) == ["a", "c"]
    assert names(await served.get(f"{MAPS}?fieldSelector=metadata.name!%3Da")) == ["b", "c"]
    code, refused = await served.ask("GET", f"{MAPS}?fieldSelector=spec.x%3Dy")
    assert code == 400 and refused["message"].startswith('"spec.x" is not a known field selector')


async def test_tables(served: Served) -> None:
    await fill(served, "a")
    shown = await served.get(MAPS, accept=TABLE)
    assert [c["name"] for c in shown["columnDefinitions"]] == ["Name", "Data", "Age"]
    assert shown["rows"][0]["cells"] == ["a", 0, "0s"]
    assert shown["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def test_items_of_lists_have_no_kind(served: Served) -> None:
    await fill(served, "a")
    listed = await served.get(MAPS)
    assert listed["kind"] == "ConfigMapList" and "kind" not in listed["items"][0]


async def test_watch_from_a_revision(served: Served) -> None:
    first, _ = await fill(served, "a", "b")
    await served.patch(f"{MAPS}/a", {"data": {"x": "1"}})
    await served.ask("DELETE", f"{MAPS}/b")
    events = await served.watch(f"{MAPS}?watch=1&resourceVersion={first}", 3)
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [
        ("ADDED", "b"),
        ("MODIFIED", "a"),
        ("DELETED", "b"),
    ]


async def test_initial_events_end_with_a_bookmark(served: Served) -> None:
    await fill(served, "a")
    events = await served.watch(
        f"{MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", 2
    )
    assert [e["type"] for e in events] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_leaving_the_selection_is_a_deletion(served: Served) -> None:
    (first,) = await fill(served, "a")
    await served.patch(f"{MAPS}/a", {"metadata": {"labels": {"n": "z"}}})
    await served.patch(f"{MAPS}/a", {"metadata": {"labels": {"n": "a"}}})
    events = await served.watch(f"{MAPS}?watch=1&resourceVersion={first}&labelSelector=n%3Da", 2)
    assert [e["type"] for e in events] == ["DELETED", "ADDED"]


async def test_a_watch_from_compacted_history_is_told_so(served: Served) -> None:
    (first, *_) = await fill(served, "a", "b", "c")
    cacher = served.server.services.registries["", "configmaps"].cacher
    assert cacher is not None
    cacher._recent.clear()  # type: ignore[attr-defined]
    cacher._recent_from = cacher.revision  # type: ignore[attr-defined]
    store = served.server.services.store
    await store.compact(store.revision)
    (event,) = await served.watch(f"{MAPS}?watch=1&resourceVersion={first}", 1)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_frames_are_shared(served: Served) -> None:
    (first,) = await fill(served, "a")
    await served.patch(f"{MAPS}/a", {"data": {"x": "1"}})
    registry = served.server.services.registries["", "configmaps"]
    chunks = []
    for _ in range(2):
        response = await served.raw("GET", f"{MAPS}?watch=1&resourceVersion={first}")
        assert response.stream is not None
        chunks.append([c async for c in _first(response.stream)])
    assert chunks[0] == chunks[1] and len(registry.frames) == 1
    assert orjson.loads(chunks[0][0])["type"] == "MODIFIED"


async def _first(stream):  # type: ignore[no-untyped-def]
    async for chunk in stream:
        if chunk:
            yield chunk
            break
    await stream.aclose()


async def test_events_are_selected_by_the_names_of_the_group_that_was_asked(served: Served) -> None:
    seen = {"kind": "Pod", "namespace": "default", "name": "p"}
    event = {"metadata": {"name": "e"}, "regarding": seen, "reportingController": "here", "reportingInstance": "n"}
    event |= {"eventTime": "2026-01-01T00:00:00.000000Z", "action": "Did", "reason": "Did", "type": "Normal"}
    group, core = "/apis/events.k8s.io/v1/namespaces/default/events", "/api/v1/namespaces/default/events"
    await served.create(group, event)
    assert names(await served.get(f"{group}?fieldSelector=reportingController=here,regarding.name=p")) == ["e"]
    assert names(await served.get(f"{group}?fieldSelector=reportingController=there")) == []
    assert names(await served.get(f"{core}?fieldSelector=source=here,involvedObject.name=p")) == ["e"]
    assert (await served.ask("GET", f"{core}?fieldSelector=reportingController=here"))[0] == 400


async def test_a_watch_by_label_in_one_namespace(served: Served) -> None:
    (first,) = await fill(served, "a")
    await served.create("/api/v1/namespaces/kube-system/configmaps", {"metadata": {"name": "x", "labels": {"n": "a"}}})
    await served.create(MAPS, {"metadata": {"name": "b", "labels": {"n": "a"}}})
    (event,) = await served.watch(f"{MAPS}?watch=1&resourceVersion={first}&labelSelector=n%3Da", 1)
    assert event["object"]["metadata"]["name"] == "b"


async def test_items_say_no_kind_however_many_there_are(served: Served) -> None:
    for expected in ([], ["a"], ["a", "b"], ["a", "b", "c"]):
        if expected:
            await fill(served, expected[-1])
        listed = await served.get(MAPS)
        assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
        assert names(listed) == expected
        assert not any({"kind", "apiVersion"} & set(item) for item in listed["items"])
