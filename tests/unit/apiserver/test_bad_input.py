"""What upstream says to bodies and parameters that are no good; each line was seen from a kube-apiserver."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from berg.apiserver.http.message import User
from tests.unit.apiserver.served_api import Served

MAPS = "/api/v1/namespaces/default/configmaps"
UNRECOGNIZED = "the object provided is unrecognized (must be of type ConfigMap): "
NO_KIND = f"{UNRECOGNIZED}couldn't get version/kind; json parse error: "
HEAD = (
    'json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; '
    'Kind string "json:\\"kind,omitempty\\"" } (5b5d)'
)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", f"{NO_KIND}unexpected end of JSON input (<empty>)"),
        (b"{", f"{NO_KIND}unexpected end of JSON input ({{)"),
        (b"[]", f"{NO_KIND}{HEAD}"),
        (
            b'{"kind":1}',
            f'{NO_KIND}json: cannot unmarshal number into Go struct field .kind of type string ({{"kind":1}})',
        ),
        (b'{"a":1,}', f"{NO_KIND}invalid character '}}' looking for beginning of object key string ({{\"a\":1,}})"),
        (b"x: y", f"{NO_KIND}invalid character 'x' looking for beginning of value (783a2079)"),
        (b"\xef\xbb\xbf{}", f"{NO_KIND}invalid character 'ï' looking for beginning of value (efbbbf7b7d)"),
        (b"\x00\x01", f"{NO_KIND}invalid character '\\x00' looking for beginning of value (0001)"),
        (
            b'{"apiVersion":"v1","kind":"Pod"}',
            'Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion',  # noqa: E501
        ),
        (
            b'{"apiVersion":"v2","kind":"ConfigMap"}',
            'ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version '
            '"v2" in scheme "pkg/api/legacyscheme/scheme.go:30"',
        ),
    ],
)
async def test_bodies(served: Served, body: bytes, told: str) -> None:
    code, refused = await served.ask("POST", MAPS, body)
    assert (code, refused["reason"], refused["message"]) == (400, "BadRequest", told)


async def test_nothing_is_an_empty_object(served: Served) -> None:
    code, refused = await served.ask("POST", MAPS, b"null")
    assert (code, refused["details"]["causes"][0]["field"]) == (422, "metadata.name")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (<empty>)"),
        (b"xyz", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (78797a)"),
    ],
)
async def test_protobuf(served: Served, body: bytes, told: str) -> None:
    _, refused = await served.ask("POST", MAPS, body, content_type="application/vnd.kubernetes.protobuf")
    assert refused["message"] == f"{UNRECOGNIZED}{told}"


@pytest.mark.parametrize(
    ("query", "code", "told"),
    [
        (
            "resourceVersion=x",
            400,
            'invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax',  # noqa: E501
        ),
        (
            "watch=1&resourceVersion=x",
            500,
            'resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax',
        ),
        ("limit=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("limit=99999999999999999999", 400, 'strconv.ParseInt: parsing "99999999999999999999": value out of range'),
        ("continue=!!!", 400, "invalid continue token: continue key is not valid: illegal base64 data at input byte 0"),
        ("timeout=1", 400, 'invalid timeout specified in the request URL - time: missing unit in duration "1"'),
        ("fieldSelector=a%3Db", 400, '"a" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        ("fieldSelector=metadata.name%3Da%5C", 400, "invalid field selector: invalid escape sequence: \\"),
        ("labelSelector=a%3D%3D%3Db", 400, "unable to parse requirement: found '=', expected: identifier"),
        ("labelSelector=a+in+(", 400, "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("labelSelector=a,,b", 400, "found ',', expected: identifier after ','"),
        ("labelSelector=%3D", 400, "found '=', expected: !, identifier, or 'end of string'"),
        ("labelSelector=a%3Db%20c", 400, "found 'c', expected: ',' or 'end of string'"),
        ("labelSelector=a%00b", 400, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        (
            "labelSelector=a%3Ex",
            400,
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",  # noqa: E501
        ),
    ],
)
async def test_parameters(served: Served, query: str, code: int, told: str) -> None:
    assert await served.ask("GET", f"{MAPS}?{query}") == (code, {**REFUSED(code), "message": told})


def REFUSED(code: int) -> dict[str, Any]:
    said = {"reason": "BadRequest"} if code == 400 else {}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, **said}


async def test_a_watch_goes_on_from_no_page(served: Served) -> None:
    code, refused = await served.ask("GET", f"{MAPS}?watch=1&continue=x")
    assert (code, refused["details"]["causes"][0]["field"]) == (422, "resourceVersionMatch")


async def test_booleans_are_true_unless_they_are_false(served: Served) -> None:
    response = await served.raw("GET", f"{MAPS}?watch=x&timeoutSeconds=1")
    assert response.stream is not None
    await response.stream.aclose()  # type: ignore[attr-defined]
    for no in ("0", "false", "False"):
        assert (await served.raw("GET", f"{MAPS}?watch={no}")).stream is None


async def test_pods_name_a_field_in_other_words(served: Served) -> None:
    _, refused = await served.ask("GET", "/api/v1/pods?fieldSelector=a%3Db")
    assert refused["message"] == "field label not supported: a"


async def test_options_of_a_deletion(served: Served) -> None:
    _, refused = await served.ask("DELETE", f"{MAPS}/nope", b"{")
    assert refused["message"] == "couldn't get version/kind; json parse error: unexpected end of JSON input"
    _, refused = await served.ask("DELETE", f"{MAPS}/nope", {"kind": "Foo"})
    assert refused["message"].startswith('no kind "Foo" is registered for version "meta.k8s.io/v1" in scheme')
    _, refused = await served.ask("DELETE", f"{MAPS}/nope?propagationPolicy=x")
    assert 'supported values: "Foreground", "Background", "Orphan", "nil"' in refused["message"]


async def test_what_takes_longer_than_the_client_waits(served: Served) -> None:
    async def never(request: Any) -> Any:
        await asyncio.Event().wait()

    served.server.paths.answers["/slow"] = never
    code, refused = await served.ask("GET", "/slow?timeout=10ms")
    assert (code, refused["reason"], refused["details"]) == (504, "Timeout", {})
    assert refused["message"] == "Timeout: request did not complete within the allotted timeout"


async def test_the_forbidden_is_not_sniffed(served: Served) -> None:
    response = await served.raw("GET", MAPS, user=User("jane"))
    assert (response.status, response.headers["X-Content-Type-Options"]) == (403, "nosniff")
