"""What a patch that cannot be applied is answered with."""

from __future__ import annotations

from berg.machinery.status import ApiError


def malformed(why: str) -> ApiError:
    """The patch itself makes no sense: 400."""
    return ApiError(400, "BadRequest", why)


class Unprocessable(ApiError):
    """The patch does not fit the object: 422. Upstream keeps the cause from clients; `why` has it for logs."""

    def __init__(self, why: str) -> None:
        super().__init__(422, "Invalid", "the server rejected our request due to an error in our request", {})
        self.why = why

    def __str__(self) -> str:
        return self.why


def unexpected(why: str) -> ApiError:
    """A fault that upstream never gave a reason: 500 with the bare message."""
    return ApiError(500, "", why)
