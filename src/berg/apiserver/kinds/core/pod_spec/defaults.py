"""Defaults of pod specs: `spec_defaults` for every PodSpec, `pod_defaults` for what only pods get.

Plain dict code, run on every write of every workload. Idempotent.

Source: kubernetes pkg/apis/core/v1/defaults.go.
"""

from __future__ import annotations

from berg.apiserver.kinds.core.pod_spec.images import pull_policy
from berg.apiserver.kinds.core.pod_spec.resources import canonical_requirements, default_pod_level
from berg.machinery.status import Obj

DEFAULT_MODE = 0o644
VOLUME_DEFAULTS: dict[str, Obj] = {
    "hostPath": {"type": ""},
    "secret": {"defaultMode": DEFAULT_MODE},
    "configMap": {"defaultMode": DEFAULT_MODE},
    "downwardAPI": {"defaultMode": DEFAULT_MODE},
    "projected": {"defaultMode": DEFAULT_MODE},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "fsType": "ext4", "readOnly": False, "kind": "Shared"},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}
"""by volume source; fields of which the zero value counts as unset are treated so (all but readOnly)"""

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBE_DEFAULTS = (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3))


def spec_defaults(spec: Obj) -> None:
    if not spec.get("restartPolicy"):
        spec["restartPolicy"] = "Always"
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    if not spec.get("schedulerName"):
        spec["schedulerName"] = "default-scheduler"
    if volumes := spec.get("volumes"):
        for v in volumes:
            _volume(v)
    for key in ("containers", "initContainers", "ephemeralContainers"):
        if containers := spec.get(key):
            for c in containers:
                container_defaults(c)
    if name := spec.get("serviceAccountName"):  # the deprecated alias always says the same
        spec["serviceAccount"] = name
    elif name := spec.get("serviceAccount"):
        spec["serviceAccountName"] = name
    if requirements := spec.get("resources"):
        canonical_requirements(requirements)
    if overhead := spec.get("overhead"):
        canonical_requirements({"limits": overhead})


def container_defaults(c: Obj) -> None:
    if not c.get("imagePullPolicy"):
        c["imagePullPolicy"] = pull_policy(c.get("image") or "")
    if not c.get("terminationMessagePath"):
        c["terminationMessagePath"] = "/dev/termination-log"
    if not c.get("terminationMessagePolicy"):
        c["terminationMessagePolicy"] = "File"
    if requirements := c.get("resources"):
        canonical_requirements(requirements)
    elif requirements is None:
        c["resources"] = {}
    for port in c.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for env in c.get("env") or ():
        if source := env.get("valueFrom"):
            if field := source.get("fieldRef"):
                field.setdefault("apiVersion", "v1")
            if (file := source.get("fileKeyRef")) and file.get("optional") is None:
                file["optional"] = False
    for key in _PROBES:
        if (probe := c.get(key)) is not None:
            _probe(probe)
    if lifecycle := c.get("lifecycle"):
        for key in ("postStart", "preStop"):
            if (hook := lifecycle.get(key)) and (get := hook.get("httpGet")):
                _http_get(get)


def _probe(probe: Obj) -> None:
    for key, value in _PROBE_DEFAULTS:
        if not probe.get(key):
            probe[key] = value
    if get := probe.get("httpGet"):
        _http_get(get)
    if (grpc := probe.get("grpc")) and grpc.get("service") is None:
        grpc["service"] = ""


def _http_get(get: Obj) -> None:
    if not get.get("path"):
        get["path"] = "/"
    if not get.get("scheme"):
        get["scheme"] = "HTTP"


def _volume(v: Obj) -> None:
    if len(v) <= 1 and "name" in v:
        v["emptyDir"] = {}
        return
    for source, body in v.items():
        if isinstance(body, dict):
            source_defaults(source, body)


def source_defaults(source: str, body: Obj) -> None:
    """Also for the sources of persistent volumes, which share names and defaults."""
    if wanted := VOLUME_DEFAULTS.get(source):
        for key, value in wanted.items():
            found = body.get(key)
            if found is None or (found == "" and value != "" and source != "azureDisk"):  # its fields may say nothing
                body[key] = value
    if source == "downwardAPI":
        _downward_items(body)
    elif source == "projected":
        for projection in body.get("sources") or ():
            if (token := projection.get("serviceAccountToken")) and token.get("expirationSeconds") is None:
                token["expirationSeconds"] = 3600
            if downward := projection.get("downwardAPI"):
                _downward_items(downward)
    elif source == "ephemeral":
        if claim := body.get("volumeClaimTemplate"):
            claim_spec_defaults(claim.setdefault("spec", {}))
    elif source == "image" and not body.get("pullPolicy"):
        body["pullPolicy"] = pull_policy(body.get("reference") or "")
    elif source == "emptyDir" and (limit := body.get("sizeLimit")) is not None:
        sizes = {"limits": {"sizeLimit": limit}}
        canonical_requirements(sizes)
        body["sizeLimit"] = sizes["limits"]["sizeLimit"]


def _downward_items(body: Obj) -> None:
    for item in body.get("items") or ():
        if field := item.get("fieldRef"):
            field.setdefault("apiVersion", "v1")


def claim_spec_defaults(spec: Obj) -> None:
    """A PersistentVolumeClaimSpec: a claim's, a StatefulSet's template's, an ephemeral volume's."""
    if spec.get("volumeMode") is None:
        spec["volumeMode"] = "Filesystem"
    if requirements := spec.get("resources"):
        canonical_requirements(requirements)
    elif requirements is None:
        spec["resources"] = {}


def pod_defaults(pod: Obj) -> None:
    """What is defaulted in pods and not in templates."""
    spec = pod["spec"]
    spec_defaults(spec)
    if spec["terminationGracePeriodSeconds"] < 0:
        spec["terminationGracePeriodSeconds"] = 1
    host_network = spec.get("hostNetwork")
    for key in ("containers", "initContainers"):
        for c in spec.get(key) or ():
            resources = c["resources"]
            if limits := resources.get("limits"):
                requests = resources.get("requests")
                if requests is None:
                    requests = resources["requests"] = {}
                for name, amount in limits.items():
                    requests.setdefault(name, amount)
            if host_network:
                for port in c.get("ports") or ():
                    if not port.get("hostPort"):
                        port["hostPort"] = port.get("containerPort")
    if spec.get("resources"):
        default_pod_level(spec)
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
