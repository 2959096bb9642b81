"""Whether a pod, or a template of pods, is sound: the rooms beside this one put together.

Source: kubernetes pkg/apis/core/validation ValidatePodSpec, ValidatePodCreate, ValidatePodTemplateSpec.
"""

from __future__ import annotations

import re

from berg.apiserver.kinds import addresses, checks
from berg.apiserver.kinds.core.pod_spec import scheduling, security
from berg.apiserver.kinds.core.pod_spec.containers import (
    Surroundings,
    validate_containers,
    validate_ephemeral_containers,
    validate_image_text,
    validate_init_containers,
)
from berg.apiserver.kinds.core.pod_spec.resource_checks import validate_pod_level, validate_requirements
from berg.apiserver.kinds.core.pod_spec.volumes import validate_volumes
from berg.apiserver.kinds.label_selectors import validate_annotations, validate_labels
from berg.machinery import names
from berg.machinery.memo import Memo, key_of
from berg.machinery.status import (
    FieldError,
    Obj,
    duplicate,
    forbidden_field,
    invalid_value,
    not_found_field,
    required,
    too_long,
)

MIRROR = "kubernetes.io/config.mirror"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
APP_ARMOR_PREFIX = "container.apparmor.security.beta.kubernetes.io/"


def validate_spec(spec: Obj, path: str, *, pod: Obj | None = None) -> list[FieldError]:
    """`pod`: the pod whose spec it is; none when it is a template's."""
    errors: list[FieldError] = []
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is None:
        errors.append(required(f"{path}.terminationGracePeriodSeconds"))
    pod_name = (pod or {}).get("metadata", {}).get("name") or ""
    volumes, faults = validate_volumes(spec.get("volumes") or (), f"{path}.volumes", pod_name)
    errors += faults
    claims = {c.get("name") for c in spec.get("resourceClaims") or ()} - {None, ""}
    errors += _resource_claims(spec, f"{path}.resourceClaims", pod)
    around = Surroundings(
        volumes=volumes,
        claims={str(c) for c in claims},
        grace_s=grace,
        os=(spec.get("os") or {}).get("name"),
        restart_policy=spec.get("restartPolicy") or "",
        host_users=spec.get("hostUsers") is not False,
    )
    regular, init = spec.get("containers") or (), spec.get("initContainers") or ()
    errors += validate_containers(regular, f"{path}.containers", around)
    errors += validate_init_containers(init, regular, f"{path}.initContainers", around)
    if debugging := spec.get("ephemeralContainers"):
        errors += validate_ephemeral_containers(debugging, [*regular, *init], f"{path}.ephemeralContainers", around)
    errors += validate_pod_level(spec, path, around.claims)
    errors += _host_network_ports(spec, path, is_pod=pod is not None)
    errors += checks.one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), ["Always", "OnFailure", "Never"])
    errors += checks.one_of(
        f"{path}.dnsPolicy", spec.get("dnsPolicy"), ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]
    )
    errors += validate_labels(spec.get("nodeSelector"), f"{path}.nodeSelector")
    errors += security.validate_pod_security_context(spec, path)
    errors += scheduling.validate_affinity(spec.get("affinity"), f"{path}.affinity")
    errors += _dns_config(spec, f"{path}.dnsConfig")
    for i, gate in enumerate(spec.get("readinessGates") or ()):
        errors += checks.named(
            f"{path}.readinessGates[{i}].conditionType", gate.get("conditionType") or "", names.qualified_name
        )
    errors += scheduling.validate_gates(spec.get("schedulingGates"), f"{path}.schedulingGates")
    errors += scheduling.validate_spreading(spec.get("topologySpreadConstraints"), f"{path}.topologySpreadConstraints")
    errors += security.validate_host_process(spec, path) + security.validate_host_users(spec, path)
    errors += _names(spec, path)
    errors += scheduling.validate_tolerations(spec.get("tolerations"), f"{path}.tolerations")
    for i, alias in enumerate(spec.get("hostAliases") or ()):
        errors += addresses.legacy_ip(f"{path}.hostAliases[{i}].ip", alias.get("ip") or "")
        for j, name in enumerate(alias.get("hostnames") or ()):
            errors += checks.named(f"{path}.hostAliases[{i}].hostnames[{j}]", name)
    if (policy := spec.get("preemptionPolicy")) is not None:
        errors += checks.one_of(f"{path}.preemptionPolicy", policy, ["PreemptLowerPriority", "Never"])
    if overhead := spec.get("overhead"):
        errors += validate_requirements({"limits": overhead}, f"{path}.overhead")
    errors += security.validate_os(spec, path)
    if (group := spec.get("schedulingGroup")) is not None:
        at, name = f"{path}.schedulingGroup.podGroupName", group.get("podGroupName")
        one = [invalid_value(at, None, "must specify one of: `podGroupName`")]
        errors += one if name is None else checks.named(at, name)
    return errors + _file_key_volumes(spec, path)


def _resource_claims(spec: Obj, path: str, pod: Obj | None) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    given = spec.get("resourceClaims") or ()
    if given and pod and MIRROR in (pod["metadata"].get("annotations") or {}):
        return [forbidden_field("", "static pods do not support resource claims")]
    for i, claim in enumerate(given):
        at, name = f"{path}[{i}]", claim.get("name") or ""
        if not name:
            errors.append(required(f"{at}.name"))
        elif name in seen:
            errors.append(duplicate(f"{at}.name", name))
        else:
            errors += checks.named(f"{at}.name", name, names.dns1123_label)
            seen.add(name)
        one, other = claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName")
        if one is not None and other is not None:
            why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errors.append(invalid_value(at, claim, why))
        if one is None and other is None:
            why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            errors.append(invalid_value(at, claim, why))
        for key, value in (("resourceClaimName", one), ("resourceClaimTemplateName", other)):
            if value is not None:
                errors += checks.named(f"{at}.{key}", value)
    return errors


def _host_network_ports(spec: Obj, path: str, *, is_pod: bool) -> list[FieldError]:
    if not spec.get("hostNetwork"):
        return []
    errors: list[FieldError] = []
    for i, c in enumerate(spec.get("containers") or ()):
        for j, p in enumerate(c.get("ports") or ()):
            host = p.get("hostPort") or 0
            if (is_pod or host) and host != p.get("containerPort"):
                why = "must match `containerPort` when `hostNetwork` is true"
                errors.append(invalid_value(f"{path}.containers[{i}].ports[{j}].hostPort", host, why))
    return errors


_LABEL = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SEARCH = rf"{_LABEL}(\.{_LABEL})*"
_search = re.compile(_SEARCH)


def _search_name(name: str) -> list[str]:
    """A subdomain that may have underscores."""
    faults = [] if len(name) <= 253 else ["must be no more than 253 characters"]
    if not _search.fullmatch(name):
        faults.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and "
            "must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            f"'{_SEARCH}')"
        )
    return faults


def _dns_config(spec: Obj, path: str) -> list[FieldError]:
    config = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None":
        if config is None:
            return [required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.get("nameservers"):
            why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [required(f"{path}.nameservers", why)]
    if not config:
        return []
    errors: list[FieldError] = []
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    if len(servers) > 3:
        errors.append(invalid_value(f"{path}.nameservers", servers, "must not have more than 3 nameservers"))
    for i, server in enumerate(servers):
        errors += addresses.legacy_ip(f"{path}.nameservers[{i}]", server)
    if len(searches) > 32:
        errors.append(invalid_value(f"{path}.searches", searches, "must not have more than 32 search paths"))
    if len(" ".join(searches)) > 2048:
        why = "must not have more than 2048 characters (including spaces) in the search list"
        errors.append(invalid_value(f"{path}.searches", searches, why))
    for i, search in enumerate(searches):
        if search != ".":
            bare = search.removesuffix(".")
            errors += checks.named(f"{path}.searches[{i}]", bare, _search_name)
    for i, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errors.append(required(f"{path}.options[{i}]", "must not be empty"))
    return errors


def _names(spec: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    override = spec.get("hostnameOverride")
    if override is not None:
        at = f"{path}.hostnameOverride"
        if spec.get("setHostnameAsFQDN"):
            errors.append(forbidden_field(at, "may not be specified when setHostnameAsFQDN is true"))
        if spec.get("hostNetwork"):
            errors.append(forbidden_field(at, "may not be specified when hostNetwork is true"))
        if len(override) > 64:
            errors.append(too_long(at, "", 64))
        errors += checks.named(at, override)
    for key, check in (
        ("serviceAccountName", names.dns1123_subdomain),
        ("nodeName", names.dns1123_subdomain),
        ("hostname", names.dns1123_label),
        ("subdomain", names.dns1123_label),
        ("priorityClassName", names.dns1123_subdomain),
        ("runtimeClassName", names.dns1123_subdomain),
    ):
        if value := spec.get(key):
            errors += checks.named(f"{path}.{key}", value, check)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None:
        errors += checks.between(f"{path}.activeDeadlineSeconds", deadline, 1, checks.MAX_INT32)
    return errors


def _file_key_volumes(spec: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    volumes = {v.get("name"): v for v in spec.get("volumes") or ()}
    for c, at in security.containers_with_path(spec, path):
        for i, env in enumerate(c.get("env") or ()):
            ref = (env.get("valueFrom") or {}).get("fileKeyRef")
            if ref is None:
                continue
            where, name = f"{at}.env[{i}].valueFrom.fileKeyRef.volumeName", ref.get("volumeName") or ""
            if name not in volumes:
                errors.append(not_found_field(where, name))
            elif volumes[name].get("emptyDir") is None:
                errors.append(invalid_value(where, name, "referenced volume must be of type emptyDir"))
    return errors


def _annotations(annotations: Obj, spec: Obj, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if MIRROR in annotations and not spec.get("nodeName"):
        why = "must set spec.nodeName if mirror pod annotation is set"
        errors.append(invalid_value(f"{path}[{MIRROR}]", annotations[MIRROR], why))
    cost = annotations.get(DELETION_COST)
    if cost is not None and not _int32(cost):
        errors.append(invalid_value(f"{path}[{DELETION_COST}]", cost, "must be a 32bit integer"))
    known = {c.get("name") for c, _ in security.containers_with_path(spec, "")}
    for key, value in annotations.items():
        if key.startswith(APP_ARMOR_PREFIX):
            name = key.removeprefix(APP_ARMOR_PREFIX)
            if name not in known:
                errors.append(invalid_value(f"{path}[{key}]", name, "container not found"))
            if value not in ("", "runtime/default", "unconfined") and not value.startswith("localhost/"):
                errors.append(invalid_value(f"{path}[{key}]", value, f'invalid AppArmor profile name: "{value}"'))
    return errors


def _int32(text: str) -> bool:
    digits = text.removeprefix("-")
    if not digits.isdigit() or (len(digits) > 1 and digits[0] == "0") or text == "-0":
        return False
    return -(2**31) <= int(text) < 2**31


_sound: Memo[bool] = Memo()
"""specs in which nothing is wrong, whatever pod has them"""


def validate_pod(pod: Obj) -> list[FieldError]:
    """What holds for every pod, new or changed."""
    spec, annotations = pod["spec"], pod["metadata"].get("annotations") or {}
    errors = _annotations(annotations, spec, "metadata.annotations")
    of_pod = spec.get("resourceClaims") or any("ephemeral" in v for v in spec.get("volumes") or ())
    allowed = security.Capabilities.allow_privileged, security.Capabilities.compare_taints
    key = key_of((allowed, spec)) if pod["metadata"].get("name") and not of_pod else b""
    if _sound.get(key):
        return errors
    faults = _validate_spec_of(pod)
    if not faults:
        _sound.put(key, True)
    return errors + faults


def _validate_spec_of(pod: Obj) -> list[FieldError]:
    spec = pod["spec"]
    errors = validate_spec(spec, "spec", pod=pod)
    if not spec.get("serviceAccountName"):
        for i, v in enumerate(spec.get("volumes") or ()):
            for j, source in enumerate((v.get("projected") or {}).get("sources") or ()):
                if source.get("serviceAccountToken") is not None:
                    at = f"spec.volumes[{i}].projected.sources[{j}].serviceAccountToken"
                    errors.append(forbidden_field(at, "must not be specified when serviceAccountName is not set"))
    for key in ("containers", "initContainers"):
        for i, c in enumerate(spec.get(key) or ()):
            errors += validate_image_text(c, f"spec.{key}[{i}]")
    return errors


def validate_pod_create(pod: Obj) -> list[FieldError]:
    spec = pod["spec"]
    errors = validate_pod(pod)
    if spec.get("ephemeralContainers"):
        errors.append(forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        why = "cannot be set until all schedulingGates have been cleared"
        errors.append(forbidden_field("spec.nodeName", why))
    return errors


def validate_template_metadata(template: Obj, path: str) -> list[FieldError]:
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    errors = validate_labels(metadata.get("labels"), f"{path}.labels")
    errors += validate_annotations(annotations, f"{path}.annotations")
    return errors + _annotations(annotations, spec, f"{path}.annotations")


def validate_template(template: Obj, path: str) -> list[FieldError]:
    spec = template.get("spec") or {}
    errors = validate_template_metadata(template, path) + validate_spec(spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        why = "ephemeral containers not allowed in pod template"
        errors.append(forbidden_field(f"{path}.spec.ephemeralContainers", why))
    return errors
