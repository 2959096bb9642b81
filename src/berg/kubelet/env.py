"""The environment of a container: envFrom, env with its sources, `$(NAME)` references, service variables.

`gather` fetches what is needed from the API first (so that the rest is plain code) and `make` puts the list
together. A missing ConfigMap, Secret or key raises `EnvError` with upstream's words.

Source: pkg/kubelet/kubelet_pods.go makeEnvironmentVariables; kubelet/envvars; third_party expansion.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from berg.kubelet import pod as p
from berg.kubelet.downward import DownwardError, PodFacts, field_value, resource_value
from berg.machinery.status import ApiError, Obj


class EnvError(Exception):
    """Shown as the message of CreateContainerConfigError."""


class Objects(Protocol):
    """Where ConfigMaps and Secrets come from (see `objects`)."""

    async def get(self, kind: str, namespace: str, name: str) -> Obj:
        """Raises ApiError."""
        ...


def expand(text: str, mapping: Callable[[str], str]) -> str:
    """Replaces `$(NAME)`; `$$` stands for `$`; what is neither stays as it is."""
    if "$" not in text:
        return text
    out: list[str] = []
    i, size = 0, len(text)
    while i < size:
        if text[i] != "$" or i + 1 >= size:
            out.append(text[i])
            i += 1
        elif text[i + 1] == "$":
            out.append("$")
            i += 2
        elif text[i + 1] == "(" and (close := text.find(")", i + 2)) >= 0:
            out.append(mapping(text[i + 2 : close]))
            i = close + 1
        else:
            out.append(text[i : i + 2])
            i += 2
    return "".join(out)


def mapping_of(*contexts: Mapping[str, str]) -> Callable[[str], str]:
    """What is in none of `contexts` stays a reference."""

    def find(name: str) -> str:
        for context in contexts:
            if name in context:
                return context[name]
        return f"$({name})"

    return find


async def make(
    pod: Obj,
    c: Obj,
    facts: PodFacts,
    objects: Objects,
    services: Iterable[Obj],
    volume_path: Callable[[str], Path | None] = lambda name: None,
) -> dict[str, str]:
    """`services` are all of the cluster; those that this pod may see are chosen here."""
    links = pod["spec"].get("enableServiceLinks", True)
    service_env = service_variables(services, p.namespace(pod), links=links is not False)
    source = _Sources(pod, objects)
    env: dict[str, str] = {}
    for entry in c.get("envFrom") or ():
        prefix = entry.get("prefix") or ""
        for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if (ref := entry.get(key)) is not None:
                data = await source.data(kind, ref.get("name", ""), bool(ref.get("optional")))
                env.update({prefix + k: v for k, v in (data or {}).items()})
    for entry in c.get("env") or ():
        value = entry.get("value") or ""
        if value:
            value = expand(value, mapping_of(env, service_env))
        elif entry.get("valueFrom"):
            found = await _value_from(pod, c, entry["valueFrom"], facts, source, volume_path)
            if found is None:
                continue
            value = found
        env[entry["name"]] = value
    return {**{k: v for k, v in service_env.items() if k not in env}, **env}


class _Sources:
    def __init__(self, pod: Obj, objects: Objects) -> None:
        self._namespace = p.namespace(pod)
        self._objects = objects

    async def data(self, kind: str, name: str, optional: bool) -> dict[str, str] | None:
        """None when it is not there and need not be."""
        try:
            obj = await self._objects.get(kind, self._namespace, name)
        except ApiError as e:
            if e.code == 404 and optional:
                return None
            raise EnvError(e.message) from e
        data = obj.get("data") or {}
        if kind == "Secret":
            return {k: base64.b64decode(v).decode("utf-8", "surrogateescape") for k, v in data.items()}
        return dict(data)

    async def key(self, kind: str, ref: Obj) -> str | None:
        optional = bool(ref.get("optional"))
        data = await self.data(kind, ref.get("name", ""), optional)
        if data is None:
            return None
        if ref["key"] in data:
            return data[ref["key"]]
        if optional:
            return None
        raise EnvError(f"couldn't find key {ref['key']} in {kind} {self._namespace}/{ref.get('name', '')}")


async def _value_from(
    pod: Obj, c: Obj, source: Obj, facts: PodFacts, sources: _Sources, volume_path: Callable[[str], Path | None]
) -> str | None:
    try:
        if ref := source.get("fieldRef"):
            return field_value(pod, ref["fieldPath"], facts)
        if ref := source.get("resourceFieldRef"):
            return resource_value(pod, c, ref, facts)
    except DownwardError as e:
        raise EnvError(str(e)) from e
    if ref := source.get("configMapKeyRef"):
        return await sources.key("ConfigMap", ref)
    if ref := source.get("secretKeyRef"):
        return await sources.key("Secret", ref)
    if ref := source.get("fileKeyRef"):
        return _from_file(ref, volume_path)
    return ""


def _from_file(ref: Obj, volume_path: Callable[[str], Path | None]) -> str | None:
    """Source: KEP-3721."""
    root = volume_path(ref["volumeName"])
    if root is None:
        raise EnvError(f'cannot find the volume "{ref["volumeName"]}" referenced by FileKeyRef')
    path = (root / ref["path"].lstrip("/")).resolve()
    if not path.is_relative_to(root.resolve()):
        raise EnvError("couldn't parse env file")
    try:
        lines = path.read_text().splitlines()
    except OSError as e:
        if ref.get("optional"):
            return None
        raise EnvError("couldn't parse env file") from e
    for line in lines:
        name, equals, value = line.strip().partition("=")
        if equals and name == ref["key"]:
            if len(value) >= 2 and value[0] == value[-1] == "'":
                value = value[1:-1]
            return value
    if ref.get("optional"):
        return None
    raise EnvError(f'environment variable key "{ref["key"]}" not found in file "{path}"')


def service_variables(services: Iterable[Obj], namespace: str, *, links: bool) -> dict[str, str]:
    """Variables of the pod's own namespace, when it wants them, and always those of the API server."""
    env: dict[str, str] = {}
    for s in services:
        ns, name = s["metadata"].get("namespace"), s["metadata"]["name"]
        ip = s["spec"].get("clusterIP")
        if not ip or ip == "None" or not s["spec"].get("ports"):
            continue
        master = ns == "default" and name == "kubernetes"
        if links and ns == namespace:
            env.update(_variables(name, ip, s["spec"]["ports"]))
        elif master:
            for key, value in _variables(name, ip, s["spec"]["ports"]).items():
                env.setdefault(key, value)
    return env


def _variables(name: str, ip: str, ports: list[Obj]) -> dict[str, str]:
    prefix = name.replace("-", "_").upper()
    host = f"[{ip}]" if ":" in ip else ip
    env = {f"{prefix}_SERVICE_HOST": ip, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    for port in ports:
        if port.get("name"):
            env[f"{prefix}_SERVICE_PORT_{port['name'].replace('-', '_').upper()}"] = str(port["port"])
    for i, port in enumerate(ports):
        protocol = (port.get("protocol") or "TCP").lower()
        url = f"{protocol}://{host}:{port['port']}"
        if i == 0:
            env[f"{prefix}_PORT"] = url
        one = f"{prefix}_PORT_{port['port']}_{protocol.upper()}"
        env[one] = url
        env[f"{one}_PROTO"] = protocol
        env[f"{one}_PORT"] = str(port["port"])
        env[f"{one}_ADDR"] = ip
    return env
