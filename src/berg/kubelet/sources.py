"""Where pods come from: the API (a watch on `spec.nodeName`) and manifest files. Both end in one `PodSet`.

A static pod's UID and hash come from its manifest and the node's name, so that the same manifest is the same pod
after a restart. What the API shows of it is its mirror pod, kept by `mirror`.

Source: pkg/kubelet/config.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import orjson

from berg.kubelet import pod as p
from berg.machinery.clock import Clock, rfc3339
from berg.machinery.status import Obj

log = logging.getLogger(__name__)

STATIC_TOLERATION = {"operator": "Exists", "effect": "NoExecute"}


class PodSet:
    """The pods that this node is to run, by UID, and the mirror pods of the static ones, by full name."""

    def __init__(self) -> None:
        self.pods: dict[str, Obj] = {}
        self.mirrors: dict[str, Obj] = {}

    def by_name(self, namespace: str, name: str) -> Obj | None:
        """The pod itself, also when only its mirror is meant."""
        for pod in self.pods.values():
            if p.name(pod) == name and p.namespace(pod) == namespace:
                return pod
        return None

    def mirror_of(self, pod: Obj) -> Obj | None:
        return self.mirrors.get(p.full_name(pod))


class Changes:
    """What the sources call; one implementation, the kubelet."""

    def __init__(self, upsert: Callable[[Obj], None], remove: Callable[[Obj], None]) -> None:
        self.upsert = upsert
        self.remove = remove


def static_pod(manifest: Obj, source: str, node_name: str, clock: Clock, place: str) -> Obj:
    """A pod from a manifest, with what the API server would have filled in. Raises ValueError on what is no pod."""
    if not isinstance(manifest, dict) or manifest.get("kind") != "Pod":
        raise ValueError(f"{place}: not a Pod")
    if not (manifest.get("spec") or {}).get("containers") or not (manifest.get("metadata") or {}).get("name"):
        raise ValueError(f"{place}: a pod needs a name and containers")
    pod = defaulted(copy.deepcopy(manifest))
    meta = pod["metadata"]
    meta.setdefault("namespace", "default")
    digest = hashlib.md5(usedforsecurity=False)
    digest.update(
        orjson.dumps([node_name, source, place if source == "file" else "", manifest], option=orjson.OPT_SORT_KEYS)
    )
    meta["uid"] = meta.get("uid") or digest.hexdigest()
    meta["name"] = f"{meta['name']}-{node_name.lower()}"
    annotations = meta.setdefault("annotations", {})
    annotations[p.CONFIG_HASH] = meta["uid"]
    annotations[p.CONFIG_SOURCE] = source
    annotations[p.CONFIG_SEEN] = rfc3339(clock.now())
    pod["spec"]["nodeName"] = node_name
    tolerations = pod["spec"].setdefault("tolerations", [])
    if STATIC_TOLERATION not in tolerations:
        tolerations.append(dict(STATIC_TOLERATION))
    pod.pop("status", None)
    return pod


def defaulted(pod: Obj) -> Obj:
    """The API's own defaults, which a manifest file has not been through."""
    spec = pod["spec"]
    for key, value in (
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("terminationGracePeriodSeconds", 30),
        ("enableServiceLinks", True),
        ("schedulerName", "default-scheduler"),
    ):
        spec.setdefault(key, value)
    spec.setdefault("securityContext", {})
    for c in p.all_containers(pod):
        c.setdefault("terminationMessagePath", "/dev/termination-log")
        c.setdefault("terminationMessagePolicy", "File")
        image = c.get("image") or ""
        tag = image.rsplit("/", 1)[-1].partition(":")[2]
        latest = "@" not in image and tag in ("", "latest")
        c.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
        c.setdefault("resources", {})
        limits, requests = c["resources"].get("limits") or {}, c["resources"].setdefault("requests", {})
        for name, value in limits.items():
            requests.setdefault(name, value)
        if not requests:
            del c["resources"]["requests"]
        for port in c.get("ports") or ():
            port.setdefault("protocol", "TCP")
            if spec.get("hostNetwork"):
                port.setdefault("hostPort", port["containerPort"])
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            if c.get(probe):
                for key, value in (
                    ("timeoutSeconds", 1),
                    ("periodSeconds", 10),
                    ("successThreshold", 1),
                    ("failureThreshold", 3),
                ):
                    c[probe].setdefault(key, value)
    for volume in spec.get("volumes") or ():
        for kind in ("configMap", "secret", "downwardAPI", "projected"):
            if volume.get(kind) is not None:
                volume[kind].setdefault("defaultMode", 0o644)
    return pod


class FileSource:
    """Pods from a file or a directory of files, followed with inotify."""

    def __init__(self, path: str, node_name: str, clock: Clock, changes: Changes) -> None:
        self._path = Path(path)
        self._node_name = node_name
        self._clock = clock
        self._changes = changes
        self._known: dict[str, Obj] = {}  # uid → pod
        self._watch: object | None = None

    def start(self) -> None:
        from berg.machinery.inotify import Inotify

        self.scan()
        try:
            watch = Inotify(self.scan)
            watch.add(self._path if self._path.is_dir() else self._path.parent)
            self._watch = watch
        except OSError as e:
            log.error("static pods: cannot watch %s: %s", self._path, e)

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.close()  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    def scan(self) -> None:
        import yaml

        found: dict[str, Obj] = {}
        for file in self._files():
            try:
                for document in yaml.load_all(file.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                    if document is not None:
                        for manifest in document.get("items", [document]) if isinstance(document, dict) else [document]:
                            pod = static_pod(manifest, "file", self._node_name, self._clock, str(file))
                            found[p.uid(pod)] = pod
            except (OSError, ValueError, yaml.YAMLError) as e:
                log.error("static pod %s: %s", file, e)
        gone = [pod for uid, pod in self._known.items() if uid not in found]
        new = [pod for uid, pod in found.items() if uid not in self._known]
        self._known = found
        for pod in gone:
            self._changes.remove(pod)
        for pod in new:
            self._changes.upsert(pod)

    def _files(self) -> list[Path]:
        if self._path.is_dir():
            return sorted(f for f in self._path.iterdir() if f.is_file() and not f.name.startswith("."))
        return [self._path] if self._path.exists() else []
