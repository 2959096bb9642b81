"""Builds `src/berg/machinery/data/internal.json`: how upstream's internal structs are declared, where that cannot be
derived from protobuf's numbers and Go's way with initials.

    python tools/build_internal.py --internal DIR --go DIR

From the declarations in DIR (Kubernetes' `pkg/apis`) and in the directory that holds the Go packages by import path
(see `build_schema.py`). Names and their order only. How a row reads is said in `berg/machinery/internal.py`.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from build_schema import META, OUT, GoSource, dump, squash

from berg.machinery.internal import derived
from berg.machinery.typedef import TypeDef, type_named

UNSEEN = (
    "admission",
    "apidiscovery",
    "authentication",
    "authorization",
    "NamedRuleWithOperations",
)  # never shown in a message
Declared = list[tuple[str, str]]
"""(name, Go type); no name for an embedded struct"""


def structs_of(text: str) -> dict[str, Declared]:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found: dict[str, Declared] = {}
    for name, body in re.findall(r"^type (\w+) struct \{\n(.*?)^\}", text, re.M | re.S):
        fields: Declared = []
        for line in body.split("\n"):
            words = re.sub(r"//.*|`.*`", "", line).replace(",", " ").split()
            *names, go_type = words or [""]
            fields += [(n, go_type) for n in names or [""]] if go_type else []
        found[name] = fields
    return found


class Internal:
    def __init__(self, root: Path) -> None:
        self.groups = {file.parent.name: structs_of(file.read_text()) for file in sorted(root.glob("*/types.go"))}

    def flat(self, group: str, name: str) -> Declared:
        """With the fields of embedded structs in their place; metadata stays one field."""
        fields: Declared = []
        for field, go_type in self.groups[group][name]:
            if field:
                fields.append((field, go_type))
            elif go_type.startswith("metav1."):
                fields += [("Metadata", go_type)] if go_type == "metav1.ObjectMeta" else []
            else:
                home, _, bare = go_type.lstrip("*").rpartition(".")
                fields += self.flat("core" if home in ("core", "api") else group, bare)
        return fields


def unset(go_type: str) -> str:
    """A field that only the internal struct has, when nobody set it."""
    if go_type.startswith(("*", "[]", "map[")):
        return "null"
    return {"bool": "false", "string": '""'}.get(go_type, "0" if go_type.startswith("int") else "null")


RENAMED = {
    "CephMonitors": "monitors",
    "DataDiskURI": "diskURI",
    "DiscoveryCHAPAuth": "chapAuthDiscovery",
    "EndpointsName": "endpoints",
    "LastTerminationState": "lastState",
    "RBDImage": "image",
    "RBDPool": "pool",
    "RadosUser": "user",
    "ReportingController": "reportingComponent",
    "SessionCHAPAuth": "chapAuthSession",
}


def row(fields: Declared, type_: TypeDef, known: set[str]) -> list[str]:
    """`known`: the JSON names that the served struct had when these declarations were made."""
    left = {squash(n): n for n in type_.fields if n in known}
    words = []
    for name, go_type in fields:
        json_name = RENAMED.get(name) or re.sub(r"Value(s?)$", r"\1", name).lower()
        if json_name in left.values() and squash(name) not in left:
            words.append(f"{name}={json_name}")
            del left[squash(json_name)]
        elif left.pop(squash(name), None):
            words.append(name)
        else:
            words.append(f"{name}~{unset(go_type)}")
    return words + [f"-{n}" for n in left.values() if n not in ("kind", "apiVersion")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--internal", type=Path, required=True)
    parser.add_argument("--go", type=Path, required=True)
    args = parser.parse_args()
    internal, go = Internal(args.internal), GoSource(args.go)
    rows: list[tuple[str, str]] = []
    for line in (OUT / "types.json").read_text().splitlines()[1:-1]:
        name = json.loads(line.rstrip(","))[0]
        m = re.fullmatch(r"io\.k8s\.api\.(\w+)\.\w+\.(\w+)", name)
        if (
            not m
            or m[2] not in internal.groups.get(m[1], ())
            or m[2].endswith("List")
            or m[1] in UNSEEN
            or m[2] in UNSEEN
        ):
            continue
        type_ = type_named(name)
        known = set(go.fields(*name.rsplit(".", 1)))
        words = row(internal.flat(m[1], m[2]), type_, known or set(type_.fields))
        if not known:  # the served type is younger than these declarations: what they do not have is younger too
            known = set(type_.fields) - {w[1:] for w in words}
            words = [w for w in words if w[0] != "-"]
        if words != [n for n, f in derived(type_) if f.name in known]:
            rows.append((name.removeprefix("io.k8s.api."), " ".join(words)))
    for name in ("OwnerReference",):
        rows.append(("meta." + name, " ".join(go.fields(META[:-1], name))))
    dump(OUT / "internal.json", rows)


if __name__ == "__main__":
    main()
