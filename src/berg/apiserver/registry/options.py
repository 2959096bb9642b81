"""The parameters of a request: CreateOptions, UpdateOptions, PatchOptions, ListOptions as the query gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from berg.apiserver.http.message import Request
from berg.apiserver.registry.decoding import IGNORE, STRICT, WARN
from berg.apiserver.registry.objectmeta import manager_errors
from berg.apiserver.requestinfo import is_true
from berg.machinery import fields, labels, status
from berg.machinery.quoting import quote
from berg.machinery.status import ApiError, FieldError, Obj

_MODES = (IGNORE, STRICT, WARN)


@dataclass(slots=True)
class WriteOptions:
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = WARN
    force: bool | None = None
    asked_validation: str = ""
    """`fieldValidation` as it was given"""

    def obj(self, kind: str) -> Obj:
        """As admission sees it."""
        found: Obj = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
        if self.dry_run:
            found["dryRun"] = ["All"]
        if self.field_manager:
            found["fieldManager"] = self.field_manager
        if self.force is not None:
            found["force"] = self.force
        if self.asked_validation:
            found["fieldValidation"] = self.asked_validation
        return found


NO_OPTIONS = WriteOptions()


def write_options(request: Request, kind: str, *, apply: bool = False) -> WriteOptions:
    """Raises Invalid, BadRequest."""
    if not request.raw_query and not apply:
        return NO_OPTIONS
    query = request.query
    errors: list[FieldError] = []
    manager = request.arg("fieldManager")
    force: bool | None = None
    if "force" in query and kind == "PatchOptions":
        force = is_true(query["force"])
        if not apply:
            errors.append(status.forbidden_field("force", "may not be specified for non-apply patch"))
    if apply and not manager:
        errors.append(status.required("fieldManager", "is required for apply patch"))
    errors += manager_errors("fieldManager", manager)
    dry_run = query.get("dryRun") or []
    errors += invalid_dry_run(dry_run)
    asked = request.arg("fieldValidation")
    mode = asked or WARN
    if mode not in _MODES:
        errors.append(status.not_supported("fieldValidation", mode, ["", *_MODES]))
    if errors:
        raise status.invalid("meta.k8s.io", kind, "", errors)
    return WriteOptions(bool(dry_run), manager, mode, force, asked)


def invalid_dry_run(values: list[str]) -> list[FieldError]:
    return [status.not_supported("dryRun", values, ["All"])] if any(v != "All" for v in values) else []


EVERY_FIELD = fields.FieldSelector()


@dataclass(slots=True)
class ListOptions:
    label_selector: labels.Selector = labels.EVERYTHING
    field_selector: fields.FieldSelector = EVERY_FIELD
    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continue_: str = ""
    timeout_s: int | None = None
    watch: bool = False
    allow_bookmarks: bool = False
    send_initial_events: bool | None = None


NO_LIST_OPTIONS = ListOptions()


def list_options(request: Request, *, may_watch: bool = True) -> ListOptions:
    """Raises BadRequest, Invalid. A deletion of many (`may_watch` False) watches nothing."""
    if not request.raw_query:
        return NO_LIST_OPTIONS
    query = request.query
    try:
        options = ListOptions(
            labels.Selector.parse(request.arg("labelSelector")) if "labelSelector" in query else labels.EVERYTHING,
            fields.parse(request.arg("fieldSelector")) if "fieldSelector" in query else EVERY_FIELD,
            request.arg("resourceVersion"),
            request.arg("resourceVersionMatch"),
            integer(request, "limit") or 0,
            request.arg("continue"),
            integer(request, "timeoutSeconds"),
            is_true(query.get("watch")),
            is_true(query.get("allowWatchBookmarks")),
            is_true(query["sendInitialEvents"]) if "sendInitialEvents" in query else None,
        )
    except ValueError as e:
        raise status.bad_request(str(e)) from None
    _validate(options)
    options.watch = options.watch and may_watch
    if options.resource_version:
        check_version(options.resource_version, watch=options.watch)
    return options


def integer(request: Request, name: str) -> int | None:
    """Raises BadRequest."""
    if name not in request.query:
        return None
    text = request.arg(name)
    if not _INTEGER.fullmatch(text):
        raise status.bad_request(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    value = int(text)
    if not -(1 << 63) <= value < 1 << 63:
        raise status.bad_request(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return value


_INTEGER = re.compile(r"[+-]?[0-9]+")


_WITH_CONTINUE = "resourceVersionMatch is forbidden when continue is provided"


def _validate(o: ListOptions) -> None:
    """Source: k8s.io/apimachinery pkg/apis/meta/internalversion/validation."""
    errors: list[FieldError] = []
    match, version = o.resource_version_match, o.resource_version
    if o.watch:
        if o.send_initial_events is not None and match != "NotOlderThan":
            errors.append(
                status.forbidden_field(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                )
            )
        if match and o.send_initial_events is None:
            errors.append(
                status.forbidden_field(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )
            )
        if match and match not in ("", "NotOlderThan"):
            errors.append(status.not_supported("resourceVersionMatch", match, ["NotOlderThan"]))
        from_the_start = version in ("", "0") and o.send_initial_events is None  # NotOlderThan is what that means
        if (match or from_the_start) and o.continue_:
            errors.append(status.forbidden_field("resourceVersionMatch", _WITH_CONTINUE))
    else:
        if match:
            if not version:
                errors.append(
                    status.forbidden_field(
                        "resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"
                    )
                )
            if o.continue_:
                errors.append(status.forbidden_field("resourceVersionMatch", _WITH_CONTINUE))
            if match not in ("Exact", "NotOlderThan"):
                errors.append(status.not_supported("resourceVersionMatch", match, ["Exact", "NotOlderThan", ""]))
            if match == "Exact" and version == "0":
                errors.append(
                    status.forbidden_field(
                        "resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
                    )
                )
        if o.send_initial_events is not None:
            errors.append(status.forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if errors:
        raise status.invalid("meta.k8s.io", "ListOptions", "", errors)


def check_version(version: str, *, watch: bool = False) -> None:
    """Raises BadRequest, and for a watch (and a GET), as upstream does, an error of the server."""
    digits = version.isascii() and version.isdigit()
    if digits and int(version) < 1 << 64:
        return
    shown = quote(version)
    why = "value out of range" if digits else "invalid syntax"
    text = f"resourceVersion: Invalid value: {shown}: strconv.ParseUint: parsing {shown}: {why}"
    if watch:
        raise ApiError(500, "", text)
    raise status.bad_request(f"invalid resource version: {text}")
