"""Images for containers: is it here, may it be pulled, and pull it.

`ImageManager.ensure` answers with the runtime's reference of the image or raises `StartError` with upstream's
reason. Failed pulls of one image for one pod back off from 10 s to 5 min. The same image is pulled once however
many containers wait for it.

Source: pkg/kubelet/images/image_manager.go.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from berg.kubelet import credentials
from berg.kubelet import pod as p
from berg.kubelet.backoff import Backoff
from berg.kubelet.start_errors import (
    ERR_IMAGE_NEVER_PULL,
    ERR_IMAGE_PULL,
    IMAGE_INSPECT_ERROR,
    IMAGE_PULL_BACK_OFF,
    INVALID_IMAGE_NAME,
    StartError,
)
from berg.machinery.clock import Clock
from berg.machinery.status import Obj
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRI, CRIError

Event = Callable[[Obj, str, str, str], None]
"""(object or reference, type, reason, message)"""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"^(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::\d+)?/)?"
    rf"{_COMPONENT}(?:/{_COMPONENT})*(?P<tag>:\w[\w.-]{{0,127}})?(?P<digest>@[A-Za-z][\w.+-]*:[0-9a-fA-F]{{32,}})?$"
)
REGISTRY_UNAVAILABLE = "RegistryUnavailable"
SIGNATURE_VALIDATION_FAILED = "SignatureValidationFailed"


def with_default_tag(image: str) -> str:
    """`nginx` → `nginx:latest`. Raises ValueError on what is no image name."""
    found = _NAME.match(image)
    if found is None:
        if _NAME.match(image.lower()):
            raise ValueError(
                f'couldn\'t parse image name "{image}": invalid reference format: repository name '
                f"({credentials.repository_of(image).partition('/')[2]}) must be lowercase"
            )
        raise ValueError(f'couldn\'t parse image name "{image}": invalid reference format')
    return image if found["tag"] or found["digest"] else f"{image}:latest"


def go_duration(seconds: float) -> str:
    """Truncated to milliseconds, as Go prints it: `1.234s`, `52ms`, `1m5.2s`."""
    ms = int(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    minutes, rest = divmod(ms, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + text


class ImageManager:
    def __init__(
        self,
        cri: CRI,
        clock: Clock,
        event: Event,
        *,
        serialize: bool = True,
        parallel: int = 0,
        node_credentials: list[credentials.Credential] | None = None,
    ) -> None:
        self._cri = cri
        self._clock = clock
        self._event = event
        self._backoff = Backoff(10, 300)
        self._last_error: dict[str, str] = {}
        self._node_credentials = node_credentials or []
        slots = parallel or (1 if serialize else 1000)
        self._slots = asyncio.Semaphore(slots)
        self._pulling: dict[tuple[str, str, str], asyncio.Task[str]] = {}

    async def present(self, image: str, handler: str = "") -> Any | None:
        """The CRI Image of that name, when it is here. Raises CRIError."""
        answer = await self._cri.image_status(
            pb.ImageStatusRequest(image=pb.ImageSpec(image=image, runtime_handler=handler))
        )
        return answer.image if answer.HasField("image") and answer.image.id else None

    async def ensure(
        self, pod: Obj, c: Obj, secrets: list[Obj], sandbox_config: Any, handler: str = "", policy: str = ""
    ) -> str:
        """The image's reference for CreateContainer."""
        requested = c.get("image") or ""
        reference = p.container_reference(pod, c)
        try:
            image = with_default_tag(requested)
        except ValueError as e:
            message = f'Failed to apply default image tag "{requested}": {e}'
            self._event(reference, "Warning", "InspectFailed", message)
            raise StartError(INVALID_IMAGE_NAME, message) from e
        policy = policy or c.get("imagePullPolicy") or ("Always" if image.endswith(":latest") else "IfNotPresent")
        if policy != "Always":
            try:
                found = await self.present(image, handler)
            except CRIError as e:
                message = f'Failed to inspect image "": {e}'
                self._event(reference, "Warning", "InspectFailed", message)
                raise StartError(IMAGE_INSPECT_ERROR, message) from e
            if found is not None:
                self._event(
                    reference,
                    "Normal",
                    "Pulled",
                    f'Container image "{requested}" already present on machine and can be accessed by the pod',
                )
                return found.id
            if policy == "Never":
                message = f'Container image "{requested}" is not present with pull policy of Never'
                self._event(reference, "Warning", ERR_IMAGE_NEVER_PULL, message)
                raise StartError(ERR_IMAGE_NEVER_PULL, message)
        return await self._pull(pod, reference, requested, image, secrets, sandbox_config, handler)

    async def _pull(
        self, pod: Obj, reference: Obj, requested: str, image: str, secrets: list[Obj], sandbox: Any, handler: str
    ) -> str:
        key = f"{p.uid(pod)}_{requested}"
        now = self._clock.now().timestamp()
        if self._backoff.waiting_since_update(key, now):
            message = f'Back-off pulling image "{requested}"'
            self._event(reference, "Normal", "BackOff", message)
            if key in self._last_error:
                message = f"{message}: {self._last_error[key]}"
            raise StartError(IMAGE_PULL_BACK_OFF, message, retry_at=self._backoff.expiry(key))
        self._last_error.pop(key, None)
        self._event(reference, "Normal", "Pulling", f'Pulling image "{requested}"')
        began = self._clock.monotonic()
        try:
            ref, took = await self._pull_with_credentials(image, secrets, sandbox, handler)
        except CRIError as e:
            text = str(e)
            self._event(reference, "Warning", "Failed", f'Failed to pull image "{requested}": {text}')
            self._backoff.next(key, self._clock.now().timestamp())
            reason, message = _reason(requested, text, e.message)
            self._last_error[key] = f"{reason}: {message}"
            # The next look only says that it backs off; that is soon, the next pull is later.
            raise StartError(reason, message, retry_at=self._clock.now().timestamp() + 1) from e
        found = await self.present(ref, handler)
        total = self._clock.monotonic() - began
        self._event(
            reference,
            "Normal",
            "Pulled",
            f'Successfully pulled image "{requested}" in {go_duration(took)} ({go_duration(total)} including waiting). '
            f"Image size: {found.size if found else 0} bytes.",
        )
        return ref

    async def _pull_with_credentials(
        self, image: str, secrets: list[Obj], sandbox: Any, handler: str
    ) -> tuple[str, float]:
        own = [c for s in secrets for c in credentials.from_secret(s)]
        tries: list[credentials.Credential | None] = [*credentials.lookup(image, own + self._node_credentials)]
        failure: CRIError | None = None
        for credential in tries or [None]:
            try:
                async with self._slots:
                    began = self._clock.monotonic()
                    ref = await self._once(image, credential, sandbox, handler)
                    return ref, self._clock.monotonic() - began
            except CRIError as e:
                failure = e
        assert failure is not None
        raise failure

    async def _once(self, image: str, credential: credentials.Credential | None, sandbox: Any, handler: str) -> str:
        """Joins a pull that is under way with the same credentials; leaving does not stop it for others."""
        key = (image, handler, repr(credential))
        task = self._pulling.get(key)
        if task is None:
            task = asyncio.ensure_future(self._request(image, credential, sandbox, handler))
            self._pulling[key] = task
            task.add_done_callback(lambda t: (self._pulling.pop(key, None), t.cancelled() or t.exception()))
        return await asyncio.shield(task)

    async def _request(self, image: str, credential: credentials.Credential | None, sandbox: Any, handler: str) -> str:
        request = pb.PullImageRequest(
            image=pb.ImageSpec(image=image, runtime_handler=handler, user_specified_image=image),
            sandbox_config=sandbox,
        )
        if credential is not None:
            request.auth.CopyFrom(
                pb.AuthConfig(
                    username=credential.username,
                    password=credential.password,
                    identity_token=credential.identity_token,
                )
            )
        return (await self._cri.pull_image(request)).image_ref

    def forget(self, uid: str) -> None:
        self._backoff.drop_prefix(uid + "_")
        for key in [k for k in self._last_error if k.startswith(uid + "_")]:
            del self._last_error[key]

    async def stop(self) -> None:
        for task in list(self._pulling.values()):
            task.cancel()
        await asyncio.gather(*self._pulling.values(), return_exceptions=True)


def _reason(image: str, text: str, message: str) -> tuple[str, str]:
    for reason, words in (
        (REGISTRY_UNAVAILABLE, "the registry is unavailable"),
        (SIGNATURE_VALIDATION_FAILED, "the signature validation failed"),
    ):
        if message.startswith(reason):
            return reason, f"image pull failed for {image} because {words}{message.removeprefix(reason)}"
    return ERR_IMAGE_PULL, text
