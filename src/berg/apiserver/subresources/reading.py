"""What is sent to a subresource: decoded as the kind that it takes, and shown to admission."""

from __future__ import annotations

from berg.apiserver.admission.interface import CONNECT, CREATE, Attributes
from berg.apiserver.http.message import Request, Response
from berg.apiserver.registry import decoding, negotiation, verbs
from berg.apiserver.registry.call import Call
from berg.apiserver.registry.options import write_options
from berg.apiserver.registry.registry import Registry
from berg.machinery import schema
from berg.machinery.resources import Resource
from berg.machinery.status import Obj


def created(request: Request, registry: Registry, resource: Resource, kind: tuple[str, str, str]) -> tuple[Call, Obj]:
    """The call, and the body as an object of `kind` (group, version, kind). Raises ApiError."""
    options = write_options(request, "CreateOptions")
    call = verbs.make_call(request, registry, resource, options, options.obj("CreateOptions"))
    shown = Resource(kind[0], kind[1], resource.plural, kind[2], True)
    obj, faults = decoding.parse_body(request, kind[2])
    decoding.check_kind(obj, shown, request.body)
    type_ = schema.type_of(*kind)
    if type_ is not None:
        try:
            faults += [f'unknown field "{path}"' for path in schema.decode(type_, obj)]
        except schema.WrongType as e:
            raise decoding.cannot_handle(shown, str(e)) from None
    if faults and options.field_validation == decoding.STRICT:
        raise decoding.cannot_handle(shown, "strict decoding error: " + ", ".join(faults))
    if options.field_validation == decoding.WARN:
        call.warnings.extend(faults)
    decoding.match_namespace(obj, call.namespace)
    return call, obj


async def mutated(
    call: Call, obj: Obj, kind: tuple[str, str, str], *, operation: str = CREATE, resource: Resource | None = None
) -> Attributes:
    """`obj` after mutating admission, to be validated. `resource`: what it was sent to, where that is not the
    registry's."""
    attributes = Attributes(
        operation,
        resource or call.registry.storage,
        "" if resource is not None else call.subresource,
        call.namespace,
        call.name,
        obj,
        None,
        call.user,
        call.options,
        call.dry_run,
        call.warnings,
        call.audit_annotations,
        attributes=call.attributes,
        subresource_kind=kind,
    )
    await call.registry.services.admission.run_mutating(attributes)
    return attributes


async def validate(call: Call, attributes: Attributes) -> None:
    await call.registry.services.admission.run_validating(attributes)


async def admit_connect(request: Request, registry: Registry, resource: Resource, kind: str, options: Obj) -> Call:
    """CONNECT is asked of admission with the options as its object."""
    from berg.apiserver.registry.options import NO_OPTIONS

    call = verbs.make_call(request, registry, resource, NO_OPTIONS, {})
    group_version = ("", "v1", kind)
    obj = {"kind": kind, "apiVersion": "v1", **options}
    await validate(call, await mutated(call, obj, group_version, operation=CONNECT))
    return call


def succeeded(request: Request, code: int = 201) -> Response:
    accepted = negotiation.negotiate(request)
    body: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}
    return negotiation.respond(request, body, accepted, code=code)
