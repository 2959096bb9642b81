"""Builds `src/berg/machinery/data/openapi.json`: what OpenAPI says of the built-in types beyond the schema bundle.

    python tools/build_openapi.py --facts DIR

DIR/openapi-v1.37.json has every definition as v3 publishes it, without descriptions: what kube-openapi's `openapi-gen`
makes of the packages of k8s.io/api, apimachinery, apiextensions-apiserver and kube-aggregator, a reference with
neighbours as `allOf`, and the kinds (`x-kubernetes-group-version-kind`) of the published OpenAPI v2 document. What is
written is a merge patch for each type, over what `berg.apiserver.openapi.schemas` writes from the bundle alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from berg.apiserver.openapi import schemas
from berg.machinery import bundle

OUT = Path(bundle.__file__).parent / "data/openapi.json"
MORE = ("io.k8s.apimachinery.pkg.version.Info",)
"""what is published and not in the bundle"""


def patch(have: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {key: None for key in have if key not in want}
    for key, value in want.items():
        if key not in have:
            found[key] = value
        elif isinstance(value, dict) and isinstance(have[key], dict):
            inner = patch(have[key], value)
            if inner:
                found[key] = inner
        elif have[key] != value:
            found[key] = value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=Path, required=True)
    facts: dict[str, Any] = json.loads((parser.parse_args().facts / "openapi-v1.37.json").read_text())
    schemas.descriptions = lambda name: {}
    bundle.openapi().clear()
    lines = []
    for name in sorted({*facts} & {*bundle.type_index(), *schemas.NAMED, *MORE}):
        more = patch(schemas.written(name), facts[name])
        if more:
            lines.append(f"{json.dumps(name)}:{json.dumps(more, separators=(',', ':'), sort_keys=True)}")
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(OUT, len(lines), "types", OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
