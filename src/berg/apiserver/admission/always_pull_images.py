"""AlwaysPullImages: nobody runs an image that he may not pull himself.

Source: kubernetes plugin/pkg/admission/alwayspullimages.
"""

from __future__ import annotations

from collections.abc import Iterator

from berg.apiserver.admission.interface import CREATE, UPDATE, Attributes, Plugin
from berg.apiserver.admission.refusal import forbidden
from berg.machinery.status import Obj

_KINDS = ("initContainers", "containers", "ephemeralContainers")


class AlwaysPullImages(Plugin):
    name = "AlwaysPullImages"
    mutating = True
    validating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"pods"})
    subresources = frozenset({"", "ephemeralcontainers"})

    def handles(self, a: Attributes) -> bool:
        """An update that brings no new image changes nothing."""
        if a.obj is None:
            return False
        return a.operation == CREATE or not set(_images(a.obj)) <= set(_images(a.old or {}))

    async def admit(self, a: Attributes) -> None:
        for key in _KINDS:
            for c in (a.obj or {}).get("spec", {}).get(key) or ():
                c["imagePullPolicy"] = "Always"

    async def validate(self, a: Attributes) -> None:
        for key in _KINDS:
            for i, c in enumerate((a.obj or {}).get("spec", {}).get(key) or ()):
                policy = c.get("imagePullPolicy") or ""
                if policy != "Always":
                    at = f"spec.{key}[{i}].imagePullPolicy"
                    raise forbidden(a, f'{at}: Unsupported value: "{policy}": supported values: "Always"')


def _images(pod: Obj) -> Iterator[str]:
    for key in _KINDS:
        for c in (pod.get("spec") or {}).get(key) or ():
            yield c.get("image") or ""
