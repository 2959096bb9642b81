"""An operator that provides databases, as one writes it with kopf: the subject of `test_kopf.py`.

A Database is a Secret, a Service and a StatefulSet; a User is a Secret, made once its Database is there. Every kind of
handler that kopf has does some real part of that. The containers serve nothing: what is tried is the API.
"""

import base64
import os
import secrets
from typing import Any

import kopf
from kubernetes import client, config

GROUP, VERSION = "pg.example.com", "v1"
IMAGE = "registry.k8s.io/e2e-test-images/nginx:1.0"


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    config.load_kube_config()
    settings.persistence.finalizer = f"{GROUP}/finalizer"
    settings.watching.server_timeout = 20
    if certificate := os.environ.get("WEBHOOK_CERTIFICATE"):
        settings.admission.server = kopf.WebhookServer(
            addr="127.0.0.1", host="127.0.0.1", certfile=certificate, pkeyfile=os.environ["WEBHOOK_KEY"],
            cafile=certificate,
        )  # fmt: skip
        settings.admission.managed = f"webhooks.{GROUP}"


def _statefulset(name: str, replicas: int) -> dict[str, Any]:
    labels = {"database": name}
    container = {
        "name": "server",
        "image": IMAGE,
        "envFrom": [{"secretRef": {"name": name}}],
        "ports": [{"name": "pg", "containerPort": 80}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    }


@kopf.on.mutate(GROUP, VERSION, "databases", id="defaults", ignore_failures=True)
def default_replicas(spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> None:
    if "replicas" not in spec:
        patch.spec["replicas"] = 1


@kopf.on.validate(GROUP, VERSION, "users", id="privileges")
def known_privileges(spec: kopf.Spec, warnings: list[str], **_: Any) -> None:
    if spec.get("privilege") not in ("read", "write"):
        raise kopf.AdmissionError(f"privilege {spec.get('privilege')!r} is not known", code=422)
    if spec["privilege"] == "write":
        warnings.append("this user may write")


@kopf.on.create(GROUP, VERSION, "databases")
def provide(body: kopf.Body, name: str, namespace: str, spec: kopf.Spec, **_: Any) -> dict[str, Any]:
    core = client.CoreV1Api()
    secret = {"metadata": {"name": name}, "stringData": {"PASSWORD": secrets.token_hex(8)}}
    service = {
        "metadata": {"name": name},
        "spec": {"selector": {"database": name}, "ports": [{"name": "pg", "port": 5432, "targetPort": "pg"}]},
    }
    stateful = _statefulset(name, spec["replicas"])
    for owned in (secret, service, stateful):
        kopf.adopt(owned)
    core.create_namespaced_secret(namespace, secret)
    made = core.create_namespaced_service(namespace, service)
    client.AppsV1Api().create_namespaced_stateful_set(namespace, stateful)
    kopf.info(body, reason="Provided", message=f"a database at {made.spec.cluster_ip}")
    return {"address": made.spec.cluster_ip}


@kopf.on.field(GROUP, VERSION, "databases", field="spec.replicas")
def scale(name: str, namespace: str, old: Any, new: Any, **_: Any) -> None:
    if old is not None:
        client.AppsV1Api().patch_namespaced_stateful_set_scale(name, namespace, {"spec": {"replicas": new}})


@kopf.on.update(GROUP, VERSION, "databases")
def remember(diff: kopf.Diff, patch: kopf.Patch, **_: Any) -> None:
    patch.status["lastChange"] = ".".join(diff[0].field)


@kopf.on.resume(GROUP, VERSION, "databases")
def resume(status: kopf.Status, patch: kopf.Patch, **_: Any) -> None:
    patch.status["resumed"] = status.get("resumed", 0) + 1


@kopf.on.event("apps", "v1", "statefulsets")
def ready(body: kopf.Body, namespace: str, **_: Any) -> None:
    owner = next((o for o in body.metadata.get("ownerReferences") or () if o["kind"] == "Database"), None)
    if owner is None:
        return
    count = body.status.get("readyReplicas", 0)
    try:
        client.CustomObjectsApi().patch_namespaced_custom_object_status(
            GROUP, VERSION, namespace, "databases", owner["name"], {"status": {"readyReplicas": count}}
        )
    except client.ApiException as e:
        if e.status != 404:
            raise


@kopf.daemon(GROUP, VERSION, "databases")
async def watch_over(stopped: kopf.DaemonStopped, name: str, namespace: str, **_: Any) -> None:
    """Lives as long as the object: says so at its begin and at its end."""
    core = client.CoreV1Api()
    if not core.list_namespaced_config_map(namespace, field_selector=f"metadata.name={name}-guarded").items:
        core.create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-guarded"}})
    await stopped.wait()
    core.create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-unguarded"}})


@kopf.timer(GROUP, VERSION, "databases", interval=0.5, sharp=True)
def tick(status: kopf.Status, patch: kopf.Patch, **_: Any) -> None:
    patch.status["ticks"] = status.get("ticks", 0) + 1


@kopf.on.delete(GROUP, VERSION, "databases")
def dump(name: str, namespace: str, **_: Any) -> None:
    client.CoreV1Api().create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-dump"}})


@kopf.on.create(GROUP, VERSION, "users", backoff=0.5)
def grant(name: str, namespace: str, spec: kopf.Spec, **_: Any) -> dict[str, str]:
    try:
        found = client.CustomObjectsApi().get_namespaced_custom_object(
            GROUP, VERSION, namespace, "databases", spec["database"]
        )
    except client.ApiException as e:
        raise kopf.TemporaryError(f"no database {spec['database']}", delay=0.5) from e
    if not found.get("status", {}).get("readyReplicas"):
        raise kopf.TemporaryError("the database is not ready", delay=0.5)
    password = base64.b64encode(secrets.token_bytes(8)).decode()
    secret = {"metadata": {"name": f"{name}-login"}, "data": {"password": password}}
    kopf.adopt(secret)
    client.CoreV1Api().create_namespaced_secret(namespace, secret)
    return {"secret": f"{name}-login"}
