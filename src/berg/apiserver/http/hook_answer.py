"""What a webhook answered: decoded, or told in the words in which a client of upstream's tells of an answer that is no
success.

Source: k8s.io/client-go rest/request.go, k8s.io/apimachinery pkg/api/errors/errors.go NewGenericServerResponse.
"""

from __future__ import annotations

from typing import Any

from berg.apiserver.http.hooks import HookError
from berg.apiserver.http.remote import TOLD
from berg.machinery.codec import json
from berg.machinery.quoting import quote

_LONGEST_SHOWN = 2048
_LARGEST_YAML = 1 << 20
"""it takes long to read, and nobody sends it"""
_NOT_AN_OBJECT = (
    'Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; '
    'Kind string "json:\\"kind,omitempty\\"" }'
)


def decoded(code: int, content_type: str | None, body: bytes) -> Any:
    """An object, or None. Raises HookError."""
    media = "" if content_type is None else content_type.partition(";")[0].strip()
    if content_type is not None and not media:
        raise HookError("Internal error occurred: mime: no media type", code=500)
    if not 200 <= code <= 206:
        raise _refusal(code, media, body)
    if not body:
        raise HookError(f"0-length response with status code: {code} and content type: {content_type or ''}")
    try:
        found = json.loads(body)
    except ValueError as fault:
        found = _as_yaml(body, fault)
    if found is not None and not isinstance(found, dict):
        given = {str: "string", list: "array", bool: "bool"}.get(type(found), "number")
        why = f"json: cannot unmarshal {given} into {_NOT_AN_OBJECT}"
        raise HookError(f"couldn't get version/kind; json parse error: {why}")
    return found


def _as_yaml(body: bytes, fault: ValueError) -> Any:
    if len(body) <= _LARGEST_YAML and body.lstrip()[:1] not in (b"{", b"["):
        from berg.machinery.codec import yaml

        try:
            return yaml.loads(body)
        except ValueError:
            pass
    raise HookError(f"couldn't get version/kind; json parse error: {fault}")


def _refusal(code: int, media: str, body: bytes) -> HookError:
    try:
        told = json.loads(body)
        if isinstance(told, dict) and told.get("kind") == "Status" and told.get("message"):
            number = told.get("code")
            return HookError(str(told["message"]), code=number if isinstance(number, int) else 0)
    except ValueError:
        pass
    is_text = not media or media.startswith("text/")
    said = body[:_LONGEST_SHOWN].decode("utf-8", "replace").strip() if is_text else "unknown"
    if code in TOLD:
        return HookError(TOLD[code], code=code)
    if code in (403, 415) or (code == 406 and said not in ("", "unknown")):
        return HookError(said, code=code)
    if code == 406:
        return HookError("the server was unable to respond with a content type that the client supports", code=code)
    if code >= 500:
        why = f"an error on the server ({quote(said)}) has prevented the request from succeeding"
        return HookError(why, code=code)
    why = f"the server responded with the status code {code} but did not return more information"
    return HookError(why, code=code)
