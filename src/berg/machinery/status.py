"""API errors: what a request that fails is answered with.

Every failure that a client may see is an `ApiError`; it carries exactly what a `metav1.Status` carries and
turns into one with `to_status()`. The functions below make the usual ones with upstream's reasons, codes and
messages. Validation never raises at the first fault: it collects `FieldError`s, and `invalid()` makes one
Status of them.

Source: k8s.io/apimachinery pkg/api/errors, pkg/util/validation/field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from berg.machinery.quoting import quote

Obj = dict[str, Any]
"""An object in Kubernetes' JSON shape."""


OMITTED = object()
"""the value of a fault that is told without it, as upstream's OmitValueType"""


@dataclass(slots=True, frozen=True)
class FieldError:
    """One fault in one field.

    `type` is upstream's ErrorType ("FieldValueRequired", "FieldValueInvalid", "FieldValueNotSupported",
    "FieldValueDuplicate", "FieldValueForbidden", "FieldValueTooLong", "FieldValueTooMany",
    "FieldValueTypeInvalid", "FieldValueNotFound", "InternalError").
    """

    type: str
    field: str
    value: Any
    detail: str

    _TEXT = {
        "FieldValueRequired": "Required value",
        "FieldValueInvalid": "Invalid value",
        "FieldValueTypeInvalid": "Invalid value",
        "FieldValueNotSupported": "Unsupported value",
        "FieldValueDuplicate": "Duplicate value",
        "FieldValueForbidden": "Forbidden",
        "FieldValueTooLong": "Too long",
        "FieldValueTooMany": "Too many",
        "FieldValueNotFound": "Not found",
        "InternalError": "Internal error",
    }

    @property
    def body(self) -> str:
        """The text without the field's path, as upstream's `ErrorBody`."""
        text = self._TEXT[self.type]
        if (
            self.type
            not in (
                "FieldValueRequired",
                "FieldValueForbidden",
                "FieldValueTooLong",
                "InternalError",
            )
            and self.value is not OMITTED
        ):
            text += f": {_show(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"


def _show(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "null"
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        return str(value)
    for mark in "<>&":  # as Go writes JSON
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def required(path: str, detail: str = "") -> FieldError:
    return FieldError("FieldValueRequired", path, "", detail)


def invalid_value(path: str, value: Any, detail: str) -> FieldError:
    return FieldError("FieldValueInvalid", path, value, detail)


def type_invalid(path: str, value: Any, detail: str) -> FieldError:
    return FieldError("FieldValueTypeInvalid", path, value, detail)


def not_supported(path: str, value: Any, supported: Sequence[str]) -> FieldError:
    """`supported` is listed in the order given; upstream sorts what comes from a set."""
    names = ", ".join(map(quote, supported))
    return FieldError("FieldValueNotSupported", path, value, f"supported values: {names}" if names else "")


def duplicate(path: str, value: Any) -> FieldError:
    return FieldError("FieldValueDuplicate", path, value, "")


def forbidden_field(path: str, detail: str) -> FieldError:
    return FieldError("FieldValueForbidden", path, "", detail)


def too_long(path: str, value: Any, limit: int) -> FieldError:
    unit = "byte" if limit == 1 else "bytes"
    return FieldError("FieldValueTooLong", path, value, f"may not be more than {limit} {unit}" if limit >= 0 else "")


def too_many(path: str, count: int, limit: int) -> FieldError:
    return FieldError("FieldValueTooMany", path, count, f"must have at most {limit} items")


def not_found_field(path: str, value: Any) -> FieldError:
    return FieldError("FieldValueNotFound", path, value, "")


class ApiError(Exception):
    """A request's failure, as a `metav1.Status` says it."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Obj | None = None,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s

    def to_status(self) -> Obj:
        status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        details = dict(self.details) if self.details else {}
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        if details or self.details is not None:
            status["details"] = details
        status["code"] = self.code
        return status

    @classmethod
    def from_status(cls, status: Obj) -> ApiError:
        """The error that a server's Status answer stands for."""
        details = status.get("details") or {}
        return cls(
            int(status.get("code") or 500),
            status.get("reason") or "",
            status.get("message") or "",
            details,
            retry_after_s=details.get("retryAfterSeconds"),
        )


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def _details(name: str, group: str, kind: str, **more: Any) -> Obj:
    details: Obj = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    details.update({k: v for k, v in more.items() if v})
    return details


def not_found(group: str, resource: str, name: str) -> ApiError:
    return ApiError(
        404, "NotFound", f'{_qualified(resource, group)} "{name}" not found', _details(name, group, resource)
    )


def already_exists(group: str, resource: str, name: str) -> ApiError:
    return ApiError(
        409,
        "AlreadyExists",
        f'{_qualified(resource, group)} "{name}" already exists',
        _details(name, group, resource),
    )


def conflict(group: str, resource: str, name: str, why: str) -> ApiError:
    return ApiError(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {why}',
        _details(name, group, resource),
    )


OPTIMISTIC_LOCK = "the object has been modified; please apply your changes to the latest version and try again"


def forbidden(group: str, resource: str, name: str, why: str) -> ApiError:
    if name:
        message = f'{_qualified(resource, group)} "{name}" is forbidden: {why}'
    elif resource:
        message = f"{_qualified(resource, group)} is forbidden: {why}"
    else:
        message = f"forbidden: {why}"
    return ApiError(403, "Forbidden", message, _details(name, group, resource))


def unauthorized(why: str = "Unauthorized") -> ApiError:
    return ApiError(401, "Unauthorized", why)


def bad_request(why: str) -> ApiError:
    return ApiError(400, "BadRequest", why)


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422 of all `errors`; message and causes as upstream's `NewInvalid`."""
    bodies: list[str] = []
    for e in errors:  # upstream's aggregate drops repeated messages
        if (text := str(e)) not in bodies:
            bodies.append(text)
    text = bodies[0] if len(bodies) == 1 else f"[{', '.join(bodies)}]"
    causes = [{"reason": e.type, "message": e.body, "field": e.field} for e in errors]
    return ApiError(
        422,
        "Invalid",
        f'{_qualified(kind, group)} "{name}" is invalid: {text}',
        _details(name, group, kind, causes=causes),
    )


def gone(why: str) -> ApiError:
    """410 with reason Gone."""
    return ApiError(410, "Gone", why)


def expired(why: str) -> ApiError:
    """410 with reason Expired: a resourceVersion or continue token that is too old."""
    return ApiError(410, "Expired", why)


def method_not_supported(group: str, resource: str, verb: str) -> ApiError:
    return ApiError(
        405,
        "MethodNotAllowed",
        f'{verb} is not supported on resources of kind "{_qualified(resource, group)}"',
        _details("", group, resource),
    )


def no_such_path() -> ApiError:
    """What the router says of a path below a group that nothing is served at."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def no_such_method() -> ApiError:
    """What the router says of a path that is served with other methods."""
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def not_acceptable(accepted: Sequence[str]) -> ApiError:
    return ApiError(
        406,
        "NotAcceptable",
        f"only the following media types are accepted: {', '.join(accepted)}",
    )


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    return ApiError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}",
    )


def too_large(why: str) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: {why}")


def too_many_requests(why: str, retry_after_s: int = 1) -> ApiError:
    return ApiError(429, "TooManyRequests", why, retry_after_s=retry_after_s)


def server_timeout(group: str, resource: str, operation: str, retry_after_s: int = 0) -> ApiError:
    return ApiError(
        500,
        "ServerTimeout",
        f"The {operation} operation against {_qualified(resource, group)} could not be completed at this time, "
        "please try again.",
        _details(operation, group, resource),
        retry_after_s=retry_after_s,
    )


def timeout(why: str, retry_after_s: int = 0) -> ApiError:
    return ApiError(504, "Timeout", f"Timeout: {why}", retry_after_s=retry_after_s)


def internal_error(why: str) -> ApiError:
    return ApiError(500, "InternalError", f"Internal error occurred: {why}", {"causes": [{"message": why}]})


def service_unavailable(why: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", why)
