"""What NodeRestriction asks of a PodCertificateRequest: it is for a pod that runs on the node that asks, and names it
as it is.

A kubelet may know more than we do yet, so what only does not fit (yet) is an error after which it may try again, and
no refusal.

Source: kubernetes plugin/pkg/admission/noderestriction, admitPodCertificateRequest (KEP-4317).
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, Api, Attributes
from berg.apiserver.admission.service_account import MIRROR
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj


def fault(api: Api, node: str, a: Attributes) -> str:
    """Why it is forbidden, or "". Raises ApiError for what may be right in a moment."""
    if a.operation != CREATE:
        return f"unexpected operation {a.operation}"
    if a.subresource:
        return f"unexpected subresource {a.subresource}"
    spec = (a.obj or {}).get("spec") or {}
    named = spec.get("nodeName") or ""
    if named != node:
        return f'PodCertificateRequest.Spec.NodeName="{named}", which is not the requesting node "{node}"'
    pod_name = f"{a.namespace}/{spec.get('podName') or ''}"
    own = _known(api, "node", "nodes", "", named, named)
    if own["metadata"]["uid"] != (spec.get("nodeUID") or ""):
        raise _later(
            f'PodCertificateRequest for pod "{pod_name}" names node UID "{spec.get("nodeUID") or ""}", inconsistent '
            f'with the running node ("{own["metadata"]["uid"]}")'
        )
    pod = _known(api, "pod", "pods", a.namespace, spec.get("podName") or "", pod_name)
    if pod["metadata"]["uid"] != (spec.get("podUID") or ""):
        raise _later(
            f'PodCertificateRequest for pod "{pod_name}" contains pod UID ("{spec.get("podUID") or ""}") which differs '
            f'from running pod "{pod["metadata"]["uid"]}"'
        )
    if (pod["spec"].get("nodeName") or "") != named:
        return f'pod "{pod_name}" is not running on node "{named}" named in the PodCertificateRequest'
    if MIRROR in (pod["metadata"].get("annotations") or {}):
        return f'pod "{pod_name}" is a mirror pod'
    account, its = spec.get("serviceAccountName") or "", pod["spec"].get("serviceAccountName") or ""
    if account != its:
        return (
            f'PodCertificateRequest for pod "{pod_name}" contains serviceAccountName ("{account}") that differs from '
            f'running pod ("{its}")'
        )
    found = _known(api, "service account", "serviceaccounts", a.namespace, account, f"{a.namespace}/{account}")
    if found["metadata"]["uid"] != (spec.get("serviceAccountUID") or ""):
        raise _later(
            f'PodCertificateRequest for pod "{pod_name}" names service account UID '
            f'"{spec.get("serviceAccountUID") or ""}", which differs from the running service account '
            f'("{found["metadata"]["uid"]}")'
        )
    return ""


def _known(api: Api, what: str, plural: str, namespace: str, name: str, shown: str) -> Obj:
    found = api.get(resource(plural), namespace, name)
    if found is None:
        raise _later(
            f'while retrieving {what} "{shown}" named in the PodCertificateRequest: {plural} "{name}" not found'
        )
    return found


def _later(why: str) -> ApiError:
    return ApiError(500, "", why)
