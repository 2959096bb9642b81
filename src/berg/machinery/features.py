"""Feature gates: which features a component has, in which stage they are, and whether they are on.

    parse(["kube:WatchList=false", …]) → {"WatchList": False} → FeatureGates(…).enabled(…)

`data/features.json` (written by `tools/build_features.py`) has one gate a row: `name: [stage, default, locked, [gates
it depends on]]`. Every component knows every gate, as upstream; what a gate does here stands in
docs/compatibility.md. The file is read when somebody first asks for a gate.

Source: k8s.io/component-base featuregate, compatibility/registry.go (the flag).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_GROUPS = {"AllAlpha": "ALPHA", "AllBeta": "BETA"}
HEEDED = frozenset(
    {
        "APIServerIdentity",
        "AllowUnsafeMalformedObjectDeletion",
        "CBORServingAndStorage",
        "ClusterTrustBundle",
        "ConstrainedImpersonation",
        "CoordinatedLeaderElection",
        "CrossNamespaceVolumeDataSource",
        "HPAScaleToZero",
        "MaxUnavailableStatefulSet",
        "PodCertificateRequest",
        "PodLogsQuerySplitStreams",
        "StorageVersionAPI",
        "StorageVersionMigrator",
        "TaintTolerationComparisonOperators",
    }
)
"""gates that change something here. The others are known and checked, and what they stand for is as it is by
default."""
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class FeatureError(ValueError):
    """A gate that cannot be set so, in upstream's words."""


@cache
def _known() -> dict[str, tuple[str, bool, bool, list[str]]]:
    import orjson

    rows: dict[str, Any] = orjson.loads(Path(__file__).with_name("data").joinpath("features.json").read_bytes())
    return {name: tuple(row) for name, row in rows.items()}


def parse(given: Iterable[str]) -> dict[str, bool]:
    """What `--feature-gates` says, each time it is given. Raises FeatureError."""
    found: dict[str, bool] = {}
    prefixes: set[bool] = set()
    for part in (p for text in given for p in text.split(",") if p):
        component, colon, pair = part.rpartition(":")
        prefixes.add(bool(colon))
        if len(prefixes) > 1:
            raise FeatureError(
                "set kube feature gates with default empty prefix or kube: prefix consistently, do not mix use"
            )
        if colon and component.strip() != "kube":
            raise FeatureError(f"component not registered: {component}")
        name, equals, value = (t.strip() for t in pair.partition("="))
        if not equals:
            raise FeatureError(f"missing bool value for {name}")
        try:
            found[name] = parse_bool(value)
        except ValueError as e:
            raise FeatureError(f"invalid value of {name}={value}, err: {e}") from None
    return found


def parse_bool(text: str) -> bool:
    """As Go reads it. Raises ValueError in its words."""
    if text not in _TRUE | _FALSE:
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _TRUE


class FeatureGates:
    """Raises FeatureError for what is unknown, locked, or on without what it depends on."""

    def __init__(self, given: Mapping[str, bool] | None = None) -> None:
        self._set = _resolve(given) if given else {}

    def enabled(self, name: str) -> bool:
        """KeyError: no such gate."""
        on = self._set.get(name)
        return _known()[name][1] if on is None else on

    def samples(self) -> Iterator[tuple[tuple[str, str], float]]:
        """(name, stage) → 1 or 0: the metric `kubernetes_feature_enabled`."""
        for name, (stage, *_) in _known().items():
            yield (name, stage), float(self.enabled(name))

    def text(self) -> str:
        """The metric in Prometheus' text format."""
        lines = [f'{METRIC}{{name="{n}",stage="{s}"}} {v:g}\n' for (n, s), v in self.samples()]
        return f"# HELP {METRIC} {HELP}\n# TYPE {METRIC} gauge\n" + "".join(lines)


METRIC = "kubernetes_feature_enabled"
HELP = "[BETA] Features with their stage: 1 is on, 0 is off."


def _resolve(given: Mapping[str, bool]) -> dict[str, bool]:
    known, errors = _known(), []
    found: dict[str, bool] = {}
    for name, on in given.items():
        if name not in known:
            raise FeatureError(f"unrecognized feature gate: {name}")
        stage, default, locked, _ = known[name]
        shown = str(on).lower()
        if locked and on != default:
            errors.append(f"cannot set feature gate {name} to {shown}, feature is locked to {str(default).lower()}")
            continue
        found[name] = on
        if on != default and name not in HEEDED and name not in _GROUPS:
            log.warning("feature gate %s=%s changes nothing here", name, shown)
        elif stage in ("", "DEPRECATED"):
            what = stage.lower() or "GA"
            log.warning("setting %s feature gate %s=%s. It will be removed in a future release.", what, name, shown)
    for group, stage in _GROUPS.items():
        if group in found:
            for name, row in known.items():
                if row[0] == stage and name not in _GROUPS:
                    found.setdefault(name, found[group])
    errors = errors or [
        f"{name} is enabled, but depends on features that are disabled: [{' '.join(off)}]"
        for name, (_, default, _, needs) in known.items()
        if needs and found.get(name, default) and (off := [n for n in needs if not found.get(n, known[n][1])])
    ]
    if errors:
        raise FeatureError(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")
    return found
