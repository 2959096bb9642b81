"""Expressions of webhooks and admission policies: the variables that they may speak of, and what each must evaluate to.

`object`, `oldObject` and `params` are of unknown type when a request is judged; where a policy's types are checked
beforehand they have the types of the kinds that it matches. Policies may name variables (`variables.x`), each of which
sees those before it.

Source: k8s.io/apiserver pkg/admission/plugin/cel/{compile,composition}.go, pkg/cel/mutation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache

from berg.machinery.cel import types
from berg.machinery.cel.environment import CompileError, Environment, Expression
from berg.machinery.cel.types import BOOL, DYN, INT, STRING, TIMESTAMP, Type, list_of, map_of, read, struct

OBJECT, JSON_PATCH = "Object", "JSONPatch"


class _Anything(Mapping[str, Type]):
    """Fields of an object of which nothing is known."""

    def __getitem__(self, name: str) -> Type:
        return DYN

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Structs(Mapping[str, Type]):
    """Types that mutating policies initialize: `Object`, `Object.spec` and so on, and `JSONPatch`."""

    def __getitem__(self, name: str) -> Type:
        if name == JSON_PATCH:
            return patch_type()
        if name == OBJECT or name.startswith(f"{OBJECT}."):
            return struct(name, _Anything())
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter((OBJECT, JSON_PATCH))

    def __len__(self) -> int:
        return 2


@cache
def patch_type() -> Type:
    return struct(JSON_PATCH, {"op": STRING, "path": STRING, "from": STRING, "value": DYN})


BOOLEAN = (BOOL,)
TEXT = (STRING,)
TEXT_OR_NULL = (STRING, types.NULL)


def object_result() -> tuple[Type, ...]:
    return (struct(OBJECT, _Anything()),)


def patch_result() -> tuple[Type, ...]:
    return (list_of(patch_type()),)


def _kind(name: str, last: str) -> Type:
    return struct(f"kubernetes.{name}", {"group": STRING, "version": STRING, last: STRING})


@cache
def _request() -> Type:
    kind, resource = _kind("GroupVersionKind", "kind"), _kind("GroupVersionResource", "resource")
    texts = list_of(STRING)
    user = struct(
        "kubernetes.UserInfo",
        {"username": STRING, "uid": STRING, "groups": texts, "extra": map_of(STRING, texts)},
    )
    names = ("subResource", "requestSubResource", "name", "namespace", "operation")
    return struct(
        "kubernetes.AdmissionRequest",
        {
            **dict.fromkeys(names, STRING),
            **dict.fromkeys(("kind", "requestKind"), kind),
            **dict.fromkeys(("resource", "requestResource"), resource),
            "userInfo": user,
            "dryRun": BOOL,
            "options": DYN,
        },
    )


@cache
def _namespace() -> Type:
    texts = list_of(STRING)
    condition = {**dict.fromkeys(("status", "type", "message", "reason"), STRING), "lastTransitionTime": TIMESTAMP}
    names = ("name", "generateName", "namespace", "UID", "resourceVersion")
    metadata = {
        **dict.fromkeys(names, STRING),
        **dict.fromkeys(("labels", "annotations"), map_of(STRING, STRING)),
        **dict.fromkeys(("creationTimestamp", "deletionTimestamp"), TIMESTAMP),
        **dict.fromkeys(("deletionGracePeriodSeconds", "generation"), INT),
        "finalizers": texts,
    }
    conditions = list_of(struct("kubernetes.NamespaceCondition", condition))
    return struct(
        "kubernetes.Namespace",
        {
            "metadata": struct("kubernetes.NamespaceMetadata", metadata),
            "spec": struct("kubernetes.NamespaceSpec", {"finalizers": texts}),
            "status": struct("kubernetes.NamespaceStatus", {"conditions": conditions, "phase": STRING}),
        },
    )


def environment(
    *,
    params: bool,
    named: Mapping[str, Type] | None = None,
    mutating: bool = False,
    object_type: Type = DYN,
    params_type: Type = DYN,
    authorizer: bool = True,
) -> Environment:
    """`named`: types of the policy's variables; None where there may be none. `authorizer`: it may be asked."""
    prefix = "kubernetes.authorization."
    variables: dict[str, Type] = {
        "object": object_type,
        "oldObject": object_type,
        "request": _request(),
        "namespaceObject": _namespace(),
    }
    if authorizer:
        variables["authorizer"] = read(f"{prefix}Authorizer")
        variables["authorizer.requestResource"] = read(f"{prefix}ResourceCheck")
    if params:
        variables["params"] = params_type
    if named is not None:
        variables["variables"] = struct("kubernetes.variables", named)
    return Environment(variables, structs=_Structs() if mutating else None, mutating=mutating)


_RUNTIME_NAMES = {"null": "null_type"}


class Compiler:
    """Compiles a policy's expressions, one after the other; a variable that compiled is known to those after it."""

    def __init__(
        self,
        *,
        params: bool,
        composed: bool = True,
        object_type: Type = DYN,
        params_type: Type = DYN,
    ) -> None:
        self._params = params
        self._object_type, self._params_type = object_type, params_type
        self._named: dict[str, Type] | None = {} if composed else None

    def _environment(self, mutating: bool, authorizer: bool) -> Environment:
        return environment(
            authorizer=authorizer,
            params=self._params,
            named=self._named,
            mutating=mutating,
            object_type=self._object_type,
            params_type=self._params_type,
        )

    def compile(
        self, text: str, wanted: Sequence[Type] = (), *, mutating: bool = False, authorizer: bool = True
    ) -> Expression:
        """`wanted`: the types it may evaluate to; none: any. Raises CompileError, whose text says all."""
        try:
            compiled = self.checked(text, mutating=mutating, authorizer=authorizer)
        except CompileError as e:
            raise CompileError(f"{e.stage}: {e}") from None
        if wanted and compiled.result not in wanted:
            shown = [_RUNTIME_NAMES.get(t.name, str(t)) for t in wanted]
            among = shown[0] if len(shown) == 1 else f"one of [{' '.join(shown)}]"
            raise CompileError(f"must evaluate to {among} but got {compiled.result}")
        return compiled

    def checked(self, text: str, *, mutating: bool = False, authorizer: bool = True) -> Expression:
        """Raises CompileError, whose text is cel-go's alone."""
        return self._environment(mutating, authorizer).compile(text)

    def variable(self, name: str, text: str) -> Expression:
        """Raises CompileError."""
        assert self._named is not None
        self._named[name] = DYN
        compiled = self.compile(text)
        self._named[name] = compiled.result
        return compiled


@lru_cache(maxsize=4096)
def for_request(text: str, *, variables: tuple[tuple[str, str], ...] = (), mutating: bool = False) -> Expression:
    """An expression as it is asked of requests; `variables`: what its policy names, with their expressions. Raises
    CompileError."""
    compiler = Compiler(params=True)
    for name, expression in variables:
        try:
            compiler.variable(name, expression)
        except CompileError:
            continue  # told where it is asked for
    return compiler.compile(text, mutating=mutating)
