"""What a pod spec may say but hardly means: deprecated, doubled, ambiguous.

Source: kubernetes pkg/api/pod/warnings.go, pkg/api/node/util.go.
"""

from __future__ import annotations

from collections.abc import Iterator

from berg.apiserver.kinds import addresses
from berg.apiserver.kinds.core.pod_spec.app_armor import app_armor_annotation
from berg.apiserver.kinds.core.pod_spec.overlaps import overlapping_files
from berg.apiserver.kinds.deprecated_labels import LABELS, in_term
from berg.machinery import quantity
from berg.machinery.memo import Memo, key_of
from berg.machinery.status import Obj

_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": (
        'non-functional in v1.16+; use the "priorityClassName" field instead'
    ),
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
VOLUMES = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
SHOWN = {"storageos": "storageOS"}
_SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
_USE_FIELD = 'non-functional in v1.27+; use the "seccompProfile" field instead'
_NO_POD = "a null labelSelector results in matching no pod"


_found: Memo[list[str]] = Memo()


def pod_warnings(pod: Obj) -> list[str]:
    annotations = pod["metadata"].get("annotations") or ()
    key = b"" if any("kubernetes.io/" in a for a in annotations) else key_of(pod.get("spec"))
    found = _found.get(key)
    if found is None:
        found = list(_warnings(pod, ""))
        _found.put(key, found)
    return found


def template_warnings(template: Obj, path: str) -> list[str]:
    return list(_warnings(template, f"{path}."))


def _warnings(pod: Obj, path: str) -> Iterator[str]:
    spec = pod.get("spec") or {}
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    at = f"{path}spec"
    yield from _node_labels(spec, at)
    for key, why in _ANNOTATIONS.items():
        if key in annotations:
            yield f"{path}metadata.annotations[{key}]: {why}"
    for i, volume in enumerate(spec.get("volumes") or ()):
        for key, why in VOLUMES.items():
            if volume.get(key) is not None:
                yield f"{at}.volumes[{i}].{SHOWN.get(key, key)}: {why}"
        if claim := (volume.get("ephemeral") or {}).get("volumeClaimTemplate"):
            from berg.apiserver.kinds.core.volume_validation import claim_spec_warnings

            where = f"{at}.volumes[{i}].ephemeral.volumeClaimTemplate.spec"
            yield from claim_spec_warnings(claim.get("spec") or {}, where)
    yield from overlapping_files(spec.get("volumes") or [])
    yield from _doubled(spec, "hostAliases", "ip", at)
    yield from _doubled(spec, "imagePullSecrets", "name", at)
    for i, secret in enumerate(spec.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            yield f'{at}.imagePullSecrets[{i}].name: invalid empty name ""'
    yield from _fractions(spec.get("overhead"), f"{at}.overhead")
    security = spec.get("securityContext") or {}
    if _SECCOMP in annotations and not security.get("seccompProfile"):
        yield f"{path}metadata.annotations[{_SECCOMP}]: {_USE_FIELD}"
    containers = list(_containers(spec, at))
    for container, where in containers:
        key = _SECCOMP_CONTAINER + (container.get("name") or "")
        if key in annotations and not (container.get("securityContext") or {}).get("seccompProfile"):
            yield f"{path}metadata.annotations[{key}]: {_USE_FIELD}"
        if path:  # a pod's own are told when they become fields
            yield from app_armor_annotation(container, annotations, security.get("appArmorProfile"), path)
        resources = container.get("resources") or {}
        for kind in ("limits", "requests"):
            yield from _fractions(resources.get(kind), f"{where}.resources.{kind}")
        yield from _hidden(container, where)
    yield from _ports(containers)
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        yield f"{at}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
    yield from _affinities(spec, at)
    for i, server in enumerate((spec.get("dnsConfig") or {}).get("nameservers") or ()):
        yield from addresses.ip_warnings(f"{at}.dnsConfig.nameservers[{i}]", server)
    for i, alias in enumerate(spec.get("hostAliases") or ()):
        yield from addresses.ip_warnings(f"{at}.hostAliases[{i}].ip", alias.get("ip") or "")


def _containers(spec: Obj, at: str) -> Iterator[tuple[Obj, str]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(kind) or ()):
            yield container, f"{at}.{kind}[{i}]"


def _node_labels(spec: Obj, at: str) -> Iterator[str]:
    for key in spec.get("nodeSelector") or ():
        if key in LABELS:
            yield f"{at}.nodeSelector[{key}]: {LABELS[key]}"
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    needed = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = f"{at}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
    for i, term in enumerate(needed.get("nodeSelectorTerms") or ()):
        yield from in_term(term, f"{terms}[{i}]")
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    for i, term in enumerate(affinity.get(preferred) or ()):
        where = f"{at}.affinity.nodeAffinity.{preferred}[{i}].preference"
        yield from in_term(term.get("preference") or {}, where, values=True)
    for i, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        where, key = f"{at}.topologySpreadConstraints[{i}]", constraint.get("topologyKey")
        if key in LABELS:
            yield f"{where}.topologyKey: {key} is {LABELS[key]}"
        if constraint.get("labelSelector") is None:
            yield f"{where}.labelSelector: {_NO_POD}"


def _doubled(spec: Obj, key: str, field: str, at: str) -> Iterator[str]:
    seen: set[str] = set()
    for i, item in enumerate(spec.get(key) or ()):
        value = item.get(field) or ""
        if value in seen:
            yield f'{at}.{key}[{i}].{field}: duplicate {field} "{value}"'
        seen.add(value)


def _fractions(amounts: Obj | None, at: str) -> Iterator[str]:
    for name in ("memory", "ephemeral-storage"):
        value = (amounts or {}).get(name)
        if value is not None and quantity.of(value).milli() % 1000:
            yield f'{at}[{name}]: fractional byte value "{quantity.of(value)}" is invalid, must be an integer'


def _hidden(container: Obj, at: str) -> Iterator[str]:
    seen: set[str] = set()
    for i, item in enumerate(container.get("env") or ()):
        name, value = item.get("name") or "", item.get("value") or ""
        reference = f"$({name})"
        if name in seen and (item.get("valueFrom") is not None or value == reference or reference not in value):
            yield f'{at}.env[{i}]: hides previous definition of "{name}", which may be dropped when using apply'
        seen.add(name)


def _ports(containers: list[tuple[Obj, str]]) -> Iterator[str]:
    ports = [(p, f"{at}.ports[{i}]") for c, at in containers for i, p in enumerate(c.get("ports") or ())]
    for n, (port, at) in enumerate(ports):
        ip, number = port.get("hostIP") or "", port.get("hostPort") or 0
        if ip and not number:
            shown = f"{{Name:{port.get('name') or ''} HostPort:0 ContainerPort:{port.get('containerPort') or 0} "
            shown += f"Protocol:{port.get('protocol') or ''} HostIP:{ip}}}"
            yield f"{at}: hostIP set without hostPort: {shown}"
        for other, where in ports[:n]:
            if any(port.get(k) != other.get(k) for k in ("containerPort", "protocol")):
                continue
            other_ip, other_number = other.get("hostIP") or "", other.get("hostPort") or 0
            if (ip, number) == (other_ip, other_number):
                yield f"{at}: duplicate port definition with {where}"
            elif not number or not other_number:
                yield f"{at}: overlapping port definition with {where}"
            elif number == other_number and bool(ip) != bool(other_ip):
                yield f"{at}: dangerously ambiguous port definition with {where}"
    named: dict[str, str] = {}
    for port, at in ports:
        name = port.get("name")
        if not name:
            continue
        if name in named:
            used = named[name]
            yield (
                f'{at}: duplicate port name "{name}" with {used}, services and probes that select ports by name '
                f"will use {used}"
            )
        else:
            named[name] = at


def _affinities(spec: Obj, at: str) -> Iterator[str]:
    for kind in ("podAffinity", "podAntiAffinity"):
        affinity = (spec.get("affinity") or {}).get(kind) or {}
        needed, preferred = (f"{n}DuringSchedulingIgnoredDuringExecution" for n in ("required", "preferred"))
        for i, term in enumerate(affinity.get(needed) or ()):
            if term.get("labelSelector") is None:
                yield f"{at}.affinity.{kind}.{needed}[{i}].labelSelector: {_NO_POD}"
        for i, weighted in enumerate(affinity.get(preferred) or ()):
            if (weighted.get("podAffinityTerm") or {}).get("labelSelector") is None:
                yield f"{at}.affinity.{kind}.{preferred}[{i}].podAffinityTerm.labelSelector: {_NO_POD}"
