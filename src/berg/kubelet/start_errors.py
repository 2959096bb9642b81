"""Why a container could not be started: what its status shows as the reason for waiting.

The reasons are upstream's error texts; `ReasonCache` keeps the last one of each container, until it starts, so
that the pod's status can be generated at any time.

Source: pkg/kubelet/container/sync_result.go, images/types.go, reason_cache.go.
"""

from __future__ import annotations

CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
ERR_IMAGE_PULL = "ErrImagePull"
IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
ERR_IMAGE_NEVER_PULL = "ErrImageNeverPull"
INVALID_IMAGE_NAME = "InvalidImageName"
IMAGE_INSPECT_ERROR = "ImageInspectError"
CREATE_CONTAINER_CONFIG_ERROR = "CreateContainerConfigError"
CREATE_CONTAINER_ERROR = "CreateContainerError"
RUN_CONTAINER_ERROR = "RunContainerError"
POST_START_HOOK_ERROR = "PostStartHookError"


class StartError(Exception):
    """`reason` is one of the above. `retry_at`, when set, is the wall time (seconds) before which to try is vain."""

    def __init__(self, reason: str, message: str, *, retry_at: float | None = None) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.retry_at = retry_at


class SyncError(Exception):
    """A sync that must be tried again: at `retry_at` (wall seconds) when it is known, else after the usual pause."""

    def __init__(self, message: str, *, retry_at: float | None = None, transient: bool = False) -> None:
        super().__init__(message)
        self.retry_at = retry_at
        self.transient = transient


class ReasonCache:
    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], StartError] = {}

    def set(self, uid: str, name: str, error: StartError | None) -> None:
        if error is None:
            self._reasons.pop((uid, name), None)
        else:
            self._reasons[uid, name] = error

    def get(self, uid: str, name: str) -> StartError | None:
        return self._reasons.get((uid, name))

    def forget(self, uid: str) -> None:
        for key in [k for k in self._reasons if k[0] == uid]:
            del self._reasons[key]
