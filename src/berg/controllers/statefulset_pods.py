"""What the pods of a StatefulSet look like: name, labels, host name, volumes by ordinal. No I/O.

Source: pkg/controller/statefulset/stateful_set_utils.go.
"""

from __future__ import annotations

from berg.controllers.objects import copied
from berg.controllers.ownership import api_ref
from berg.controllers.pods import from_template
from berg.machinery import meta
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"
REVISION_LABEL = "controller-revision-hash"


def ordinal(s: Obj, pod: Obj) -> int | None:
    """None for a pod whose name is not one of the set's."""
    parent, _, number = meta.name(pod).rpartition("-")
    return int(number) if parent == meta.name(s) and number.isdigit() else None


def claim_name(s: Obj, template: Obj, n: int) -> str:
    return f"{template['metadata']['name']}-{meta.name(s)}-{n}"


def volumes(s: Obj, existing: list[Obj], n: int) -> list[Obj]:
    """The pod's volumes: those of claim templates first, in place of others of the same name."""
    templates = s["spec"].get("volumeClaimTemplates") or []
    names = {t["metadata"]["name"] for t in templates}
    made = [
        {"name": t["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim_name(s, t, n)}} for t in templates
    ]
    return [*made, *(v for v in existing if v["name"] not in names)]


def new_pod(s: Obj, template: Obj, revision: str, n: int, owners: Resource) -> Obj:
    pod = from_template(template, s, api_ref(s, owners))
    md, name = pod["metadata"], f"{meta.name(s)}-{n}"
    md.pop("generateName")
    md["name"] = name
    md["labels"].update({NAME_LABEL: name, INDEX_LABEL: str(n), REVISION_LABEL: revision})
    spec = copied(pod["spec"])
    spec["hostname"] = name
    if s["spec"].get("serviceName"):
        spec["subdomain"] = s["spec"]["serviceName"]
    if found := volumes(s, spec.get("volumes") or [], n):
        spec["volumes"] = found
    return {**pod, "spec": spec}


def matches(s: Obj, pod: Obj) -> bool:
    """Whether name label and volumes are as they should be."""
    n = ordinal(s, pod)
    if n is None or meta.labels(pod).get(NAME_LABEL) != meta.name(pod):
        return False
    claims = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["spec"].get("volumes") or ()}
    return all(
        claims.get(t["metadata"]["name"]) == claim_name(s, t, n) for t in s["spec"].get("volumeClaimTemplates") or ()
    )


def with_identity(s: Obj, pod: Obj, n: int) -> Obj:
    """The pod as it should be; only what may be changed in a pod that exists."""
    labels = {**meta.labels(pod), NAME_LABEL: meta.name(pod), INDEX_LABEL: str(n)}
    return {**pod, "metadata": {**pod["metadata"], "labels": labels}}
