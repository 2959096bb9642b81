"""The schema bundle: all that is known about built-in kinds as data. Written by `tools/build_schema.py`.

`data/resources.json`, one resource a row, groups and versions in upstream's order of preference:

    [group, version, plural, kind, namespaced, singular, verbs, short names, categories,
     [[subresource, group, version, kind, verbs], …]]

`data/types.json`, one type a row: `[name, {"k": [group, version, kind], "mt": "atomic", "f": fields, "in": inlines}]`,
a field being `[json name, type, protobuf number, flags, more]`:

* type: `string bytes bool int32 int64 double quantity intorstring time microtime duration json raw fieldsv1
  schemaorarray schemaorbool schemaorstrings`, `#N` (the type in row N), `[]T`, `{}T` (map by string), and
  `~[]string` (a list that protobuf wraps in a message);
* number: 0 when protobuf does not carry the field (or an embedded message does);
* flags: 1 required, 2 a pointer in Go, 4 omitempty, 8 omitzero: together they say what a decoded and
  re-encoded object looks like;
* more: `lt` list type, `lk` list keys, `mt` map type, `ps`/`pk` patch strategy and merge key, `d` default,
  `g` the name Go gives a named type in its messages, `ge` that of its elements.

`data/types_old.json` goes on counting where `types.json` ends: types of API versions that are served no more,
which objects in old snapshots have.

`in` lists messages `[number, N]` whose fields stand inline in JSON. Reading both files costs a few
milliseconds; nothing is built from a row before someone asks for it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from berg.machinery.resources import Resource, Subresource


def read(name: str) -> Any:
    """One file of the bundle."""
    return orjson.loads(Path(__file__).with_name("data").joinpath(name).read_bytes())


@cache
def _rows() -> list[Any]:
    return read("resources.json")


def resources(*, disabled: bool = False) -> list[Resource]:
    """Every built-in resource that is served by default; with `disabled` also those of alpha and beta versions,
    which upstream serves only when `--runtime-config` says so."""
    found = []
    for group, version, plural, kind, namespaced, singular, verbs, short, categories, subs in _rows():
        if not disabled and not enabled_by_default(version):
            continue
        subresources = {s[0]: Subresource(s[0], s[1], s[2], s[3], tuple(s[4])) for s in subs}
        found.append(
            Resource(
                group,
                version,
                plural,
                kind,
                namespaced,
                singular,
                f"{kind}List" if "list" in verbs else "",
                tuple(verbs),
                tuple(short),
                tuple(categories),
                subresources,
            )
        )
    return found


def enabled_by_default(version: str) -> bool:
    """Upstream serves stable versions by default and no others (since v1.24, KEP-3136)."""
    return re.fullmatch(r"v\d+", version) is not None


def group_versions(*, disabled: bool = False) -> dict[str, list[str]]:
    """group -> its versions, both in upstream's order of preference."""
    found: dict[str, list[str]] = {}
    for group, version, *_ in _rows():
        if (disabled or enabled_by_default(version)) and version not in found.setdefault(group, []):
            found[group].append(version)
    return {g: v for g, v in found.items() if v}


@cache
def type_rows() -> list[Any]:
    """The rows of `types.json`: everything that this version of Kubernetes knows."""
    return read("types.json")


@cache
def _old_rows() -> list[Any]:
    return read("types_old.json")


def type_row(n: int) -> list[Any]:
    """The row that `#N` means."""
    current = type_rows()
    return current[n] if n < len(current) else _old_rows()[n - len(current)]


def type_number(name: str) -> int | None:
    """The row of the type that OpenAPI calls `io.k8s.api.apps.v1.Deployment`."""
    found = type_index().get(name)
    return found if found is not None else _old_index().get(name)


@cache
def type_index() -> dict[str, int]:
    """OpenAPI name -> row of `types.json`."""
    return {row[0]: i for i, row in enumerate(type_rows())}


@cache
def _old_index() -> dict[str, int]:
    return {row[0]: i for i, row in enumerate(_old_rows(), len(type_rows()))}


@cache
def openapi() -> dict[str, Any]:
    """OpenAPI name -> what a published schema says beyond `types.json`, as a merge patch over what is written from
    that (`tools/build_openapi.py`)."""
    found: dict[str, Any] = read("openapi.json")
    return found


@cache
def kind_index() -> dict[tuple[str, str, str], int]:
    """(group, version, kind) -> row, of what is served (by default or not)."""
    return {tuple(row[1]["k"]): i for i, row in enumerate(type_rows()) if "k" in row[1]}
