"""Reviews: questions about who somebody is and what he may do. Created, answered, never stored.

Source: kubernetes pkg/registry/authorization, pkg/registry/authentication.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from berg.apiserver.admission.interface import CREATE, Attributes
from berg.apiserver.auth import rules, selectors
from berg.apiserver.auth.authentication import AUTHENTICATED, Bearer, Unauthorized
from berg.apiserver.auth.authorization import AuthzAttributes, Decision, Union, settled
from berg.apiserver.http.message import Request, Response, User
from berg.apiserver.registry import decoding, negotiation
from berg.apiserver.registry.options import write_options
from berg.apiserver.registry.services import Services
from berg.apiserver.requestinfo import RequestInfo
from berg.machinery import schema, status
from berg.machinery.clock import rfc3339
from berg.machinery.resources import Resource
from berg.machinery.status import FieldError, Obj

AUTHORIZATION, AUTHENTICATION = "authorization.k8s.io", "authentication.k8s.io"
_ONE_OF = "exactly one of nonResourceAttributes or resourceAttributes must be specified"


class Reviews:
    def __init__(self, services: Services, union: Union, bearer: Bearer) -> None:
        self._services = services
        self._union = union
        self._bearer = bearer
        self._answers: dict[str, Callable[[Request, Obj], Awaitable[None]]] = {
            "subjectaccessreviews": self._subject_access,
            "localsubjectaccessreviews": self._local_subject_access,
            "selfsubjectaccessreviews": self._self_subject_access,
            "selfsubjectrulesreviews": self._self_subject_rules,
            "selfsubjectreviews": self._self_subject,
            "tokenreviews": self._token,
        }

    @property
    def resources(self) -> list[tuple[str, str]]:
        """(group, plural) of everything answered here."""
        authn = ("selfsubjectreviews", "tokenreviews")
        return [(AUTHENTICATION if p in authn else AUTHORIZATION, p) for p in self._answers]

    async def handle(self, request: Request, resource: Resource) -> Response:
        accepted = negotiation.negotiate(request)
        options = write_options(request, "CreateOptions")
        obj, faults = decoding.parse_body(request, resource.kind)
        decoding.check_kind(obj, resource, request.body)
        type_ = schema.type_of(resource.group, resource.version, resource.kind)
        assert type_ is not None
        try:
            faults += [f'unknown field "{path}"' for path in schema.decode(type_, obj)]
        except schema.WrongType as e:
            raise decoding.cannot_handle(resource, str(e)) from None
        if faults and options.field_validation == decoding.STRICT:
            raise decoding.cannot_handle(resource, "strict decoding error: " + ", ".join(faults))
        info: RequestInfo = request.info
        user = _user(request)
        attributes = Attributes(CREATE, resource, "", info.namespace, "", obj, None, user, options.obj("CreateOptions"))
        await self._services.admission.run_mutating(attributes)
        await self._services.admission.run_validating(attributes)
        await self._answers[resource.plural](request, obj)
        return negotiation.respond(request, obj, accepted, code=201)

    # ---- authorization

    async def _subject_access(self, request: Request, obj: Obj) -> None:
        spec = obj.get("spec") or {}
        self._refuse([*_validate(spec, subject=True), *_metadata(obj)])
        await self._decide(obj, _subject(spec))

    async def _local_subject_access(self, request: Request, obj: Obj) -> None:
        spec, info = obj.get("spec") or {}, request.info
        errors = [*_validate(spec, subject=True), *_metadata(obj, "namespace")]
        decoding.match_namespace(obj, info.namespace)
        asked = spec.get("resourceAttributes") or {}
        if asked and asked.get("namespace", "") != info.namespace:
            path = "spec.resourceAttributes.namespace"
            errors.append(status.invalid_value(path, asked.get("namespace", ""), "must match metadata.namespace"))
        if spec.get("nonResourceAttributes"):
            why = "disallowed on this kind of request"
            errors.append(
                status.invalid_value("spec.nonResourceAttributes", _internal(spec["nonResourceAttributes"]), why)
            )
        self._refuse(errors)
        await self._decide(obj, _subject(spec))

    async def _self_subject_access(self, request: Request, obj: Obj) -> None:
        self._refuse([*_validate(obj.get("spec") or {}, subject=False), *_metadata(obj)])
        await self._decide(obj, _user(request))

    async def _decide(self, obj: Obj, user: User) -> None:
        asked, ignored = _attributes(obj["spec"], user)
        verdict = await settled(self._union.authorize(asked))
        answer: Obj = {"allowed": verdict.allowed}
        if verdict.decision is Decision.DENY:
            answer["denied"] = True
        if verdict.reason:
            answer["reason"] = verdict.reason
        faults = [verdict.error] if verdict.error else []
        faults += [f"spec.resourceAttributes.{name} {how} due to parse error" for name, how in ignored]
        if faults:
            answer["evaluationError"] = "; ".join(faults)
        obj["status"] = answer

    def _refuse(self, errors: list[FieldError]) -> None:
        if errors:
            raise status.invalid(AUTHORIZATION, "", "", errors)

    async def _self_subject_rules(self, request: Request, obj: Obj) -> None:
        namespace = (obj.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise status.bad_request("no namespace on request")
        found = rules.of(self._union, _user(request), namespace)
        obj["spec"] = {}
        obj["status"] = {
            "resourceRules": found.resources,
            "nonResourceRules": found.paths,
            "incomplete": found.incomplete,
        }
        if found.errors:
            obj["status"]["evaluationError"] = ", ".join(found.errors)

    # ---- authentication

    async def _self_subject(self, request: Request, obj: Obj) -> None:
        obj["metadata"]["creationTimestamp"] = rfc3339(self._services.clock.now())
        obj["status"] = {"userInfo": _user(request).info()}

    async def _token(self, request: Request, obj: Obj) -> None:
        spec = obj.get("spec") or {}
        if not spec.get("token"):
            raise status.bad_request("token is required for TokenReview in authentication")
        answer: Obj = {"user": {}}
        try:
            asked = self._bearer.authenticate_token(spec["token"], spec.get("audiences") or ())
            found = asked if asked is None or isinstance(asked, tuple) else await asked
        except Unauthorized as e:
            found = None
            answer["error"] = f"[invalid bearer token, {e}]"
        if found is None:
            answer.setdefault("error", "invalid bearer token")
        else:
            user, audiences = found
            groups = user.groups if AUTHENTICATED in user.groups else (*user.groups, AUTHENTICATED)
            answer["authenticated"] = True
            answer["user"] = User(user.name, user.uid, groups, user.extra).info()
            tokens = self._services.tokens
            answer["audiences"] = audiences or (list(tokens.audiences) if tokens is not None else [])
        obj["status"] = answer


def _user(request: Request) -> User:
    assert request.user is not None
    return request.user


def _subject(spec: Obj) -> User:
    extra = {k: list(v or ()) for k, v in (spec.get("extra") or {}).items()}
    return User(spec.get("user", ""), spec.get("uid", ""), tuple(spec.get("groups") or ()), extra)


def _attributes(spec: Obj, user: User) -> tuple[AuthzAttributes, list[tuple[str, str]]]:
    """What is asked, and which selectors were left out, wholly or in part."""
    a = spec.get("resourceAttributes")
    if a is None:
        a = spec["nonResourceAttributes"]
        return AuthzAttributes(user, a.get("verb", ""), path=a.get("path", ""), is_resource=False), []
    of_fields, fields_ignored = selectors.field_text(a.get("fieldSelector") or {})
    of_labels, labels_ignored = selectors.label_text(a.get("labelSelector") or {})
    asked = AuthzAttributes(
        user,
        a.get("verb", ""),
        a.get("group", ""),
        a.get("version") or "*",
        a.get("resource", ""),
        a.get("subresource", ""),
        a.get("namespace", ""),
        a.get("name", ""),
        field_selector=of_fields,
        label_selector=of_labels,
    )
    ignored = [("fieldSelector", fields_ignored), ("labelSelector", labels_ignored)]
    return asked, [(name, how) for name, how in ignored if how]


def _metadata(obj: Obj, *kept: str) -> list[FieldError]:
    """A review has no metadata; `kept`: but for these."""
    given = {k: v for k, v in (obj.get("metadata") or {}).items() if v and k not in ("managedFields", *kept)}
    if not given:
        return []
    shown = {k: v for k, v in obj["metadata"].items() if v and k != "managedFields"}
    return [status.invalid_value("metadata", shown, "must be empty" + (f" except for {kept[0]}" if kept else ""))]


def _internal(path: Obj) -> Obj:
    """As upstream's internal type is shown."""
    return {"Path": path.get("path", ""), "Verb": path.get("verb", "")}


def _validate(spec: Obj, *, subject: bool) -> list[FieldError]:
    errors = []
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and other is not None:
        why = "cannot be specified in combination with resourceAttributes"
        errors.append(status.invalid_value("spec.nonResourceAttributes", _internal(other), why))
    if resource is None and other is None:
        errors.append(status.invalid_value("spec.resourceAttributes", None, _ONE_OF))
    if subject and not spec.get("user") and not spec.get("groups"):
        errors.append(status.invalid_value("spec.user", "", "at least one of user or group must be specified"))
    if resource is not None:
        errors += selectors.validate(resource, "spec.resourceAttributes")
    return errors
