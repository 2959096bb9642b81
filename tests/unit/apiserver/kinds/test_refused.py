"""What is refused, and in which words: an object of each kind, a change of it, the faults in order.

The expectations are upstream's answers (v1.36.2), recorded: `tests/data/kinds/refused.json` of creations of the changed
object, `refused_updates.json` of updates to it. A change maps paths (`spec/ports/0/port`, `~1` for a slash in a key) to
values, null for "left out".
"""

import copy
import json
from pathlib import Path

import pytest

from berg.apiserver.registry.shown import errors_as_go
from berg.machinery import internal, schema
from berg.machinery.resources import resource

from .writing import context, faults, strategy

DATA = Path(__file__).parents[3] / "data" / "kinds"
YOUNGER = {"BindMountOptions", "DefaultUser", "EvictionResponders", "Mode", "Protocol"}
"""fields of the structs below that v1.37 has added"""
OLD_STRUCTS = {"ConfigMapVolumeSource", "GRPCAction", "HTTPGetAction", "PodSpec", "VolumeMount"}


def cases(file):
    return [
        pytest.param(kind, group["object"], change, wanted, id=f"{kind}-{i}-{'+'.join(change)}-{j}")
        for kind, groups in json.loads((DATA / file).read_text()).items()
        for i, group in enumerate(groups)
        for j, (change, wanted) in enumerate(group["refused"])
    ]


def changed(obj, change):
    obj = copy.deepcopy(obj)
    for path, value in change.items():
        holder = obj
        *steps, last = (int(s) if s.isdigit() else s.replace("~1", "/") for s in path.split("/"))
        for step in steps:
            holder = holder[step]
        if value is None:
            del holder[last]
        else:
            holder[last] = value
    return obj


def decoded(kind, obj):
    r = resource(kind)
    obj = {"apiVersion": r.api_version, "kind": r.kind, **copy.deepcopy(obj)}
    obj["metadata"] = {**obj["metadata"], "uid": "u-1"}
    schema.decode(schema.type_of(r.group, r.version, r.kind), obj)
    strategy(kind).default(obj)
    return obj


@pytest.mark.parametrize(("kind", "obj", "change", "wanted"), cases("refused.json"))
def test_refused(kind, obj, change, wanted):
    assert faults(kind, decoded(kind, changed(obj, change))) == wanted


@pytest.fixture
def structs_of_old(monkeypatch):
    real = internal.declaration

    def declaration(struct):
        return [x for x in real(struct) if struct.short not in OLD_STRUCTS or x[0] not in YOUNGER]

    monkeypatch.setattr(internal, "declaration", declaration)


@pytest.mark.usefixtures("structs_of_old")
@pytest.mark.parametrize(("kind", "obj", "change", "wanted"), cases("refused_updates.json"))
def test_refused_updates(kind, obj, change, wanted):
    s, r = strategy(kind), resource(kind)
    old, new = decoded(kind, obj), decoded(kind, changed(obj, change))
    if s.has_status:
        old["status"] = new["status"] = {}
    s.prepare_for_update(context(kind), new, old)
    found = errors_as_go(schema.type_of(r.group, r.version, r.kind), s.validate_update(context(kind), new, old))
    assert [str(e) for e in found] == wanted
