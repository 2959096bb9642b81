"""Fields that a feature gate guards."""

import copy

import pytest

from berg.apiserver.kinds import gated

PATHS = ("spec.devices.*.attributes.*.ints", "spec.devices.*.attributes.*.bools")
SLICE = {"spec": {"devices": [{"attributes": {"a": {"ints": [1]}, "b": {"int": 2}}}, {"name": "d"}]}}
PLAIN = {"spec": {"devices": [{"attributes": {"a": {}, "b": {"int": 2}}}, {"name": "d"}]}}


class Gate:
    """Of a request's context only this is asked."""

    def __init__(self):
        self.on = False
        self.asked = []

    def enabled(self, gate):
        self.asked.append(gate)
        return self.on


@pytest.fixture
def gate():
    return Gate()


def dropped(gate, new, old):
    new = copy.deepcopy(new)
    gated.drop_disabled(gate, "G", new, old, *PATHS)
    return new


def test_what_is_off_is_dropped(gate):
    assert dropped(gate, SLICE, None) == PLAIN
    assert dropped(gate, SLICE, PLAIN) == PLAIN


def test_what_was_there_may_stay(gate):
    assert dropped(gate, SLICE, SLICE) == SLICE


def test_what_is_on_stays(gate):
    gate.on = True
    assert dropped(gate, SLICE, None) == SLICE


def test_nothing_is_asked_of_what_does_not_use_it(gate):
    assert dropped(gate, PLAIN, None) == PLAIN
    assert gate.asked == []
