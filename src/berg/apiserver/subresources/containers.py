"""Which container of a pod is meant."""

from __future__ import annotations

from berg.machinery import status
from berg.machinery.status import Obj

DEFAULT = "kubectl.kubernetes.io/default-container"


def choose(pod: Obj, wanted: str) -> str:
    """The named one, or the only one. Raises BadRequest."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    plain = [c["name"] for c in spec.get("containers") or ()]
    init = [c["name"] for c in spec.get("initContainers") or ()]
    ephemeral = [c["name"] for c in spec.get("ephemeralContainers") or ()]
    if wanted:
        if wanted in (*plain, *init, *ephemeral):
            return wanted
        raise status.bad_request(f"container {wanted} is not valid for pod {name}")
    if len(plain) == 1:
        return str(plain[0])
    if not plain:
        raise status.bad_request(f"a container name must be specified for pod {name}")
    known = " ".join([*init, *plain, *ephemeral])
    raise status.bad_request(f"a container name must be specified for pod {name}, choose one of: [{known}]")
