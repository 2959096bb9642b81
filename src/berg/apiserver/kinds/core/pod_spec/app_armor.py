"""AppArmor profiles that are still asked for by annotation: they become the field of their container.

Source: kubernetes pkg/registry/core/pod strategy.go, applyAppArmorVersionSkew.
"""

from __future__ import annotations

from collections.abc import Iterator

from berg.apiserver.kinds.core.pod_spec.security import app_armor_profile
from berg.machinery.status import Obj

PREFIX = "container.apparmor.security.beta.kubernetes.io/"


def profiles_from_annotations(spec: Obj, annotations: Obj) -> Iterator[str]:
    """Yields warnings; changes the containers."""
    if (spec.get("os") or {}).get("name") == "windows":
        return
    of_pod = (spec.get("securityContext") or {}).get("appArmorProfile")
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(key) or ():
            named = PREFIX + (container.get("name") or "")
            context = container.get("securityContext") or {}
            if named not in annotations or context.get("appArmorProfile") is not None:
                continue
            profile = _profile(annotations[named])
            if profile is not None and profile == of_pod:
                continue
            if profile is not None:
                container["securityContext"] = {**context, "appArmorProfile": profile}
            yield f'metadata.annotations[{named}]: deprecated since v1.30; use the "appArmorProfile" field instead'


def app_armor_annotation(container: Obj, annotations: Obj, of_pod: Obj | None, path: str) -> Iterator[str]:
    """The warning of a container of a template, whose annotations stay what they are."""
    named = PREFIX + (container.get("name") or "")
    if named not in annotations or (container.get("securityContext") or {}).get("appArmorProfile") is not None:
        return
    if of_pod is None or of_pod != _profile(annotations[named]):
        yield f'{path}metadata.annotations[{named}]: deprecated since v1.30; use the "appArmorProfile" field instead'


def _profile(text: str) -> Obj | None:
    """None: no profile that the field could hold."""
    if text == "unconfined":
        return {"type": "Unconfined"}
    if text == "runtime/default":
        return {"type": "RuntimeDefault"}
    if not text.startswith("localhost/"):
        return None
    local = {"type": "Localhost", "localhostProfile": text.removeprefix("localhost/")}
    return None if app_armor_profile(local, "") else local
