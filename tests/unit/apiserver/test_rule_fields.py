"""Fields that rules of a schema name."""

from __future__ import annotations

import pytest

from berg.apiserver.crd.rule_fields import undefined

SCHEMA = {
    "type": "object",
    "properties": {
        "x": {"type": "integer"},
        "some-name": {"type": "string"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


@pytest.mark.parametrize(
    "rule",
    [
        "self.x > 1 && oldSelf.x < 2",
        "has(self.list) && self.list.all(e, e.b == 'self.z')",
        "self.list[self.x].a == self.map['k'].a",
        "self.free.anything.at.all",
        "self.some__dash__name.size() > 0",
        "other.self.z",
    ],
)
def test_what_is_there(rule: str) -> None:
    assert undefined(rule, SCHEMA) == []


@pytest.mark.parametrize(
    ("rule", "name"),
    [("self.z == 1", "z"), ("self.list[0].b == 'x'", "b"), ("self.map['k'].b", "b"), ("has(oldSelf.z)", "z")],
)
def test_what_is_not(rule: str, name: str) -> None:
    (fault,) = undefined(rule, SCHEMA)
    assert f"undefined field '{name}'" in fault


def test_the_message_shows_where() -> None:
    assert undefined("self.z == 1", SCHEMA) == ["ERROR: <input>:1:5: undefined field 'z'\n | self.z == 1\n | ....^"]


def test_the_root_has_what_every_object_has() -> None:
    assert undefined("self.metadata.name == 'a' && self.kind == 'B'", SCHEMA, root=True) == []
    assert len(undefined("self.metadata.name == 'a'", SCHEMA)) == 1
