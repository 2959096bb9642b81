"""What is refused, and in which words: an object of each kind, a change of it, the faults in order.

The expectations are upstream's answers (v1.36.2), recorded; see `tests/data/kinds/refused.json`. A change maps paths
(`spec/ports/0/port`, `~1` for a slash in a key) to values, null for "left out".
"""

import copy
import json
from pathlib import Path

import pytest

from berg.machinery import schema
from berg.machinery.resources import resource

from .writing import faults, strategy

DATA = Path(__file__).parents[3] / "data" / "kinds" / "refused.json"
TABLE = json.loads(DATA.read_text())
CASES = [
    pytest.param(kind, group["object"], change, wanted, id=f"{kind}-{i}-{'+'.join(change)}-{j}")
    for kind, groups in TABLE.items()
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


@pytest.mark.parametrize(("kind", "obj", "change", "wanted"), CASES)
def test_refused(kind, obj, change, wanted):
    r = resource(kind)
    obj = {"apiVersion": r.api_version, "kind": r.kind, **changed(obj, change)}
    obj["metadata"] = {**obj["metadata"], "uid": "u-1"}
    schema.decode(schema.type_of(r.group, r.version, r.kind), obj)
    strategy(kind).default(obj)
    assert faults(kind, obj) == wanted
