"""Warnings to clients: what a header may carry."""

from __future__ import annotations

from berg.apiserver import warnings
from tests.unit.apiserver.served_api import Served


def test_quoted_and_said_once() -> None:
    assert warnings.header(["a", "b", "a", ""]) == '299 - "a"\n299 - "b"'
    assert warnings.header(['say "\\"']) == '299 - "say \\"\\\\\\""'
    assert warnings.header(["ä"]).encode("latin-1").decode() == '299 - "ä"'


def test_nothing_that_would_end_the_header() -> None:
    for text in ("a\rX: y", "a\nX: y", "a\x00", "a\x85", "a\ud800"):
        assert warnings.header([text, "b"]) == '299 - "b"', repr(text)


def test_all_together_are_bounded() -> None:
    many = [f"{i:04}" + "x" * 996 for i in range(100)]
    said = warnings.header(many).split("\n")
    assert [len(s) for s in said] == [256 + len('299 - ""')] * 16


async def test_field_names_of_a_stranger(served: Served) -> None:
    body = {"metadata": {"name": "a"}, "a\r\nX-Evil: 1": 1, "fine": 1}
    response = await served.raw("POST", "/api/v1/namespaces/default/configmaps", body)
    assert response.status == 201
    assert response.headers["Warning"] == '299 - "unknown field \\"fine\\""'
