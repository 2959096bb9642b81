"""The API server's own configuration files: one object, decoded strictly, its kind and version told.

Source: k8s.io/apimachinery runtime.Decode with strict codecs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from berg.machinery.status import FieldError, Obj

GROUP = "apiserver.config.k8s.io"

Shape = Mapping[str, Any]
"""field → None (any value), a shape (an object), or a list of one shape (objects in a list)"""


class BadConfiguration(ValueError):
    """The file cannot be used; the message says why, as upstream does."""


def read(path: str, kind: str, versions: Sequence[str], shape: Shape) -> Obj:
    """Raises BadConfiguration, OSError."""
    from berg.machinery.codec import yaml as yaml_codec

    data = Path(path).read_bytes()
    if not data:
        raise BadConfiguration("empty config data")
    try:
        obj = yaml_codec.loads(data)
    except ValueError as e:
        raise BadConfiguration(str(e)) from None
    if not isinstance(obj, dict):
        raise BadConfiguration("couldn't get version/kind; json parse error: not an object")
    if not obj.get("kind"):
        raise BadConfiguration(f"Object 'Kind' is missing in '{data.decode('utf-8', 'replace')}'")
    if not obj.get("apiVersion"):
        raise BadConfiguration(f"Object 'apiVersion' is missing in '{data.decode('utf-8', 'replace')}'")
    if obj["kind"] != kind or obj["apiVersion"] not in [f"{GROUP}/{v}" for v in versions]:
        told = f'no kind "{obj["kind"]}" is registered for version "{obj["apiVersion"]}"'
        raise BadConfiguration(told)
    unknown = list(_unknown(obj, {"kind": None, "apiVersion": None, **shape}, ""))
    if unknown:
        raise BadConfiguration("strict decoding error: " + ", ".join(f'unknown field "{u}"' for u in unknown))
    return obj


def refuse(errors: Iterable[FieldError]) -> None:
    """Raises BadConfiguration when there are any, all of them told."""
    told = list(dict.fromkeys(map(str, errors)))
    if told:
        raise BadConfiguration(told[0] if len(told) == 1 else f"[{', '.join(told)}]")


def _unknown(obj: Any, shape: Shape, path: str) -> Iterable[str]:
    if not isinstance(obj, dict):
        return
    for name, value in sorted(obj.items()):
        at = f"{path}.{name}" if path else str(name)
        if name not in shape:
            yield at
            continue
        inner = shape[name]
        if isinstance(inner, list):
            for i, one in enumerate(value if isinstance(value, list) else ()):
                yield from _unknown(one, inner[0], f"{at}[{i}]")
        elif inner is not None:
            yield from _unknown(value, inner, at)
