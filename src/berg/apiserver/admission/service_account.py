"""ServiceAccount: every pod has one, gets its token as a projected volume and its pull secrets.

Source: kubernetes plugin/pkg/admission/serviceaccount.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import orjson

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.machinery import names
from berg.machinery.hashing import suffix_of
from berg.machinery.resources import resource
from berg.machinery.status import Obj

MIRROR = "kubernetes.io/config.mirror"
ENFORCE_MOUNTABLE = "kubernetes.io/enforce-mountable-secrets"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
TOKEN_SECONDS = 3607
"""an hour, and a mark by which tokens of this volume are known"""
DEFAULT_ACCOUNT_ATTEMPTS = 10


class ServiceAccount(Plugin):
    name = "ServiceAccount"
    mutating = True
    validating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"pods"})
    subresources = frozenset({"", "ephemeralcontainers"})

    async def admit(self, a: Attributes) -> None:
        if a.operation != CREATE or a.obj is None:
            return
        pod = a.obj
        if MIRROR in (pod["metadata"].get("annotations") or {}):
            return
        spec = pod["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(a, name)
        automount = spec.get("automountServiceAccountToken")
        if automount is None:
            automount = account.get("automountServiceAccountToken")
        if automount is not False:
            mount_token(spec)
        if not spec.get("imagePullSecrets") and (pull := account.get("imagePullSecrets")):
            spec["imagePullSecrets"] = [dict(s) for s in pull]

    async def validate(self, a: Attributes) -> None:
        if a.obj is None:
            return
        spec = a.obj["spec"]
        debugging = a.operation == UPDATE and a.subresource == "ephemeralcontainers"
        if a.operation != CREATE and not debugging:
            return
        if MIRROR in (a.obj["metadata"].get("annotations") or {}) and not debugging:
            self._mirror(a, spec)
            return
        name = spec.get("serviceAccountName")
        if not name:
            pod_name = a.obj["metadata"].get("name") or ""
            raise forbidden(a, f"no service account specified for pod {a.namespace}/{pod_name}")
        account = await self._account(a, name)
        annotation = (account["metadata"].get("annotations") or {}).get(ENFORCE_MOUNTABLE)
        if annotation in ("1", "t", "T", "true", "TRUE", "True"):
            kinds = ("ephemeralContainers",) if debugging else ("initContainers", "containers")
            if fault := _unmountable(account, spec, kinds):
                raise forbidden(a, fault)

    def _mirror(self, a: Attributes, spec: Obj) -> None:
        if spec.get("serviceAccountName"):
            raise forbidden(a, "a mirror pod may not reference service accounts")
        if any(secret_names(spec)):
            raise forbidden(a, "a mirror pod may not reference secrets")
        for volume in spec.get("volumes") or ():
            for source in (volume.get("projected") or {}).get("sources") or ():
                if source.get("serviceAccountToken") is not None:
                    raise forbidden(a, "a mirror pod may not use ServiceAccountToken volume projections")

    async def _account(self, a: Attributes, name: str) -> Obj:
        """The default account of a new namespace is awaited for up to a second or two."""
        attempts = DEFAULT_ACCOUNT_ATTEMPTS if name == "default" else 1
        for attempt in range(attempts):
            if attempt:
                await asyncio.sleep(0.15)  # for another component's work, not for the clock: real time
            if found := self.api.get(resource("serviceaccounts"), a.namespace, name):
                return found
        why = f'serviceaccount "{name}" not found'
        if faults := names.path_segment(name):
            why = f'invalid resource name "{name}": [{" ".join(faults)}]'
        raise forbidden(a, f"error looking up service account {a.namespace}/{name}: {why}")


def mount_token(spec: Obj) -> None:
    volumes = spec.get("volumes") or []
    known = next((v["name"] for v in volumes if (v.get("name") or "").startswith(VOLUME_PREFIX)), "")
    # Differs from upstream, which rolls dice: pods of one template stay the same, so what is found of one holds for all
    name = known or VOLUME_PREFIX + suffix_of(orjson.dumps(spec))
    used = False
    for key in ("initContainers", "containers"):
        for c in spec.get(key) or ():
            mounts = c.get("volumeMounts") or []
            if not any(m.get("mountPath") == MOUNT_PATH for m in mounts):
                c["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
                used = True
    if used and not known:
        spec["volumes"] = [*volumes, {"name": name, "projected": token_source()}]


def token_source() -> Obj:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ],
        "defaultMode": 0o644,
    }


def _env_secrets(container: Obj) -> Iterator[tuple[str, str]]:
    """(what refers to it, secret)"""
    for env in container.get("env") or ():
        if ref := (env.get("valueFrom") or {}).get("secretKeyRef"):
            yield f"envVar {env.get('name', '')}", ref.get("name") or ""
    for source in container.get("envFrom") or ():
        if ref := source.get("secretRef"):
            yield "envFrom", ref.get("name") or ""


def secret_names(spec: Obj) -> Iterator[str]:
    """Every secret that a pod refers to."""
    for s in spec.get("imagePullSecrets") or ():
        yield s.get("name") or ""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for c in spec.get(key) or ():
            for _, name in _env_secrets(c):
                yield name
    for v in spec.get("volumes") or ():
        if secret := v.get("secret"):
            yield secret.get("secretName") or ""
        for source in (v.get("projected") or {}).get("sources") or ():
            if ref := source.get("secret"):
                yield ref.get("name") or ""
        for source in v.values():
            if isinstance(source, dict):
                for key in ("secretRef", "nodePublishSecretRef"):
                    if ref := source.get(key):
                        yield ref.get("name") or ""
                if source.get("secretName") and source is not v.get("secret"):
                    yield source["secretName"]


def _unmountable(account: Obj, spec: Obj, kinds: tuple[str, ...]) -> str:
    """The first reference to a secret that the account does not list, or ""."""
    name = account["metadata"]["name"]
    mountable = {s.get("name") for s in account.get("secrets") or ()}
    words = {
        "initContainers": "init container",
        "containers": "container",
        "ephemeralContainers": "ephemeral container",
    }
    debugging = kinds == ("ephemeralContainers",)
    if not debugging:
        for v in spec.get("volumes") or ():
            if (secret := v.get("secret")) and secret.get("secretName") not in mountable:
                return (
                    f'volume with secret.secretName="{secret.get("secretName")}" is not allowed because service '
                    f"account {name} does not reference that secret"
                )
    for kind in kinds:
        for c in spec.get(kind) or ():
            for what, secret_name in _env_secrets(c):
                if secret_name not in mountable:
                    return (
                        f'{words[kind]} {c.get("name")} with {what} referencing secret.secretName="{secret_name}" is '
                        f"not allowed because service account {name} does not reference that secret"
                    )
    if not debugging:
        pullable = {s.get("name") for s in account.get("imagePullSecrets") or ()}
        for i, s in enumerate(spec.get("imagePullSecrets") or ()):
            if s.get("name") not in pullable:
                return (
                    f'imagePullSecrets[{i}].name="{s.get("name")}" is not allowed because service account {name} '
                    "does not reference that imagePullSecret"
                )
    return ""
