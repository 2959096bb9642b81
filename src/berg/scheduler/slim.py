"""Pods as the scheduler keeps them: without what it never looks at, and with what siblings share kept once.

The scheduler holds every pod of the cluster. Of a pod of 12 kB it needs a third, and most of that is the same in all
pods of a template. `Slimmer.pod` takes out of a freshly parsed object environment, mounts, probes, commands, projected
volumes, and the kubelet's account of containers, and replaces equal parts of specs by one object.

Plugins therefore see pods in this form.
"""

from __future__ import annotations

from typing import Any

import orjson

from berg.scheduler.state.podinfo import volumes_that_matter

Obj = dict[str, Any]

KEEP_OF_CONTAINER = ("name", "image", "resources", "ports", "restartPolicy", "restartPolicyRules")
KEEP_OF_STATUS = ("name", "resources", "allocatedResources")
SHARED = ("containers", "initContainers", "tolerations", "affinity", "topologySpreadConstraints", "nodeSelector")
MANY = 20_000
"""distinct parts, beyond which the table begins anew"""


class Slimmer:
    def __init__(self) -> None:
        self._parts: dict[bytes, Any] = {}

    def pod(self, pod: Obj) -> Obj:
        """Changes and answers its argument, which must be the caller's own."""
        pod["metadata"].pop("managedFields", None)
        spec = pod["spec"]
        for field in ("containers", "initContainers"):
            if containers := spec.get(field):
                spec[field] = [{k: c[k] for k in KEEP_OF_CONTAINER if k in c} for c in containers]
        if "volumes" in spec:
            spec["volumes"] = volumes_that_matter(spec)
        for field in SHARED:
            if (part := spec.get(field)) is not None:
                spec[field] = self._shared(part)
        status = pod.get("status")
        if status:
            for field in ("containerStatuses", "initContainerStatuses"):
                if statuses := status.get(field):
                    status[field] = self._shared([{k: s[k] for k in KEEP_OF_STATUS if k in s} for s in statuses])
            status.pop("ephemeralContainerStatuses", None)
        return pod

    def _shared(self, part: Any) -> Any:
        key = orjson.dumps(part)
        found = self._parts.get(key)
        if found is None:
            if len(self._parts) >= MANY:
                self._parts.clear()
            found = self._parts[key] = part
        return found
