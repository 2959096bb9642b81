"""Packs upstream's default roles and bindings (data: names and rules) into the API server's data file.

python tools/build_rbac.py DIRECTORY     with cluster-roles.yaml, cluster-role-bindings.yaml, …
"""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
import yaml

FILES = (
    "cluster-roles",
    "controller-roles",
    "cluster-role-bindings",
    "controller-role-bindings",
    "namespace-roles",
    "namespace-role-bindings",
)
TARGET = Path(__file__).parent.parent / "src/berg/apiserver/data/rbac.json"


def main() -> None:
    source = Path(sys.argv[1])
    packed = {}
    for name in FILES:
        items = yaml.safe_load((source / f"{name}.yaml").read_text())["items"]
        packed[name] = [{k: v for k, v in item.items() if k != "apiVersion" and v is not None} for item in items]
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(orjson.dumps(packed))


if __name__ == "__main__":
    main()
