"""Which built-in resources are served: those of stable versions, and what `--runtime-config` turns on or off.

The more a key names, the more it counts: `GROUP/VERSION/RESOURCE`, `GROUP/VERSION`, `api/ga|beta|alpha`, `api/all`.

Source: k8s.io/apiserver pkg/server/options/api_enablement.go, pkg/server/resourceconfig.
"""

from __future__ import annotations

from collections.abc import Mapping

from berg.machinery import bundle, features
from berg.machinery.resources import Resource, builtin

_ALL = ("api/all", "api/ga", "api/beta", "api/alpha")


def served_by(runtime_config: Mapping[str, str]) -> list[Resource]:
    """Raises ValueError, in upstream's words, for what cannot be meant."""
    if not runtime_config:
        return builtin().all
    check(runtime_config)
    known = bundle.resources(disabled=True)

    def wanted(r: Resource) -> bool:
        stage = "beta" if "beta" in r.version else "alpha" if "alpha" in r.version else "ga"
        keys = (f"{r.api_version}/{r.plural}", r.api_version, f"api/{stage}", "api/all")
        said = next((runtime_config[k] for k in keys if k in runtime_config), None)
        return bundle.enabled_by_default(r.version) if said is None else not said or features.parse_bool(said)

    return [r for r in known if wanted(r)]


def check(runtime_config: Mapping[str, str]) -> None:
    """Raises ValueError."""
    if dict(runtime_config) == {"api/all": "false"}:
        raise ValueError("invalid runtime-config with only api/all=false")
    versions = {(group, version) for group, version, _ in bundle.kind_index()}
    groups = {group for group, _ in versions}
    named = {key: key.split("/") for key in runtime_config if key not in _ALL}
    for key, parts in named.items():
        if len(parts) not in (2, 3):
            raise ValueError(f"runtime-config invalid key {key}")
    if strangers := sorted({"/".join(p[:2]) for p in named.values() if p[0] not in groups}):
        raise ValueError(f"unknown api groups {','.join(strangers)}")
    for key in runtime_config:
        if key in _ALL and runtime_config[key] not in ("true", "false"):
            raise ValueError(f"invalid value {key}={runtime_config[key]}")
    for key, parts in named.items():
        if (parts[0], parts[1]) not in versions:
            raise ValueError(f"group version {parts[0]}/{parts[1]} that has not been registered")
        if value := runtime_config[key]:
            try:
                features.parse_bool(value)
            except ValueError as e:
                raise ValueError(f"invalid value of {key}: {value}, err: {e}") from None
