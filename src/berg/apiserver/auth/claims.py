"""From the claims of a verified token to a user: what `claimMappings`, `claimValidationRules` and
`userValidationRules` of one JWT authenticator say. No I/O.

Source: k8s.io/apiserver plugin/pkg/authenticator/token/oidc/oidc.go.
"""

from __future__ import annotations

from typing import Any

from berg.apiserver.auth.authentication import CREDENTIAL_ID, Unauthorized
from berg.apiserver.http.message import User
from berg.machinery.cel import EvaluationError
from berg.machinery.cel.access import compile_over
from berg.machinery.status import Obj

_GO_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "bool"),
    (int, "number"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)
_LIST = "expression must return a string or a list of strings"


class Mapping:
    """One JWTAuthenticator's rules, ready to be used; `config` has been validated."""

    def __init__(self, config: Obj) -> None:
        mappings = config.get("claimMappings") or {}
        self._username: Obj = mappings.get("username") or {}
        self._groups: Obj = mappings.get("groups") or {}
        self._uid: Obj = mappings.get("uid") or {}
        self._extra: list[Obj] = mappings.get("extra") or []
        rules = config.get("claimValidationRules") or []
        self._required = {r["claim"]: r.get("requiredValue") or "" for r in rules if r.get("claim")}
        self._conditions = [r for r in rules if r.get("expression")]
        self._user_conditions: list[Obj] = config.get("userValidationRules") or []

    @property
    def groups_claim(self) -> str:
        return str(self._groups.get("claim") or "")

    def user(self, claims: Obj) -> User:
        """Raises Unauthorized, in upstream's words."""
        name = self._name(claims)
        user = User(name, self._uid_of(claims), tuple(self._groups_of(claims)), self._extra_of(claims))
        for claim, wanted in self._required.items():
            if claim not in claims:
                raise Unauthorized(f"oidc: required claim {claim} not present in ID token")
            value = _string(claims, claim, f"oidc: parse claim {claim}")
            if value != wanted:
                why = f"value does not match. Got = {value}, want = {wanted}"
                raise Unauthorized(f"oidc: required claim {claim} {why}")
        for rule in self._conditions:
            _must_hold(rule, {"claims": _as_go(claims)}, "oidc: error evaluating claim validation expression")
        if self._user_conditions:
            known: Obj = {"username": name, "uid": user.uid, "groups": list(user.groups), "extra": user.extra}
            for rule in self._user_conditions:
                _must_hold(rule, {"user": known}, "oidc: error evaluating user info validation rule")
        return user

    def _name(self, claims: Obj) -> str:
        expression = self._username.get("expression")
        if expression:
            what = "oidc: error evaluating username claim expression"
            name = _evaluate(expression, {"claims": _as_go(claims)}, what)
            if not isinstance(name, str):
                raise Unauthorized(f"{what}: username claim expression must return a string")
            if not name:
                raise Unauthorized("oidc: empty username via CEL expression is not allowed")
            return name
        claim = self._username["claim"]
        name = _string(claims, claim, f'oidc: parse username claims "{claim}"')
        if claim == "email" and "email_verified" in claims:
            verified = claims["email_verified"]
            if verified is not None and not isinstance(verified, bool):
                raise Unauthorized(f"oidc: parse 'email_verified' claim: {_not_a('bool', verified)}")
            if not verified:
                raise Unauthorized("oidc: email not verified")
        return (self._username.get("prefix") or "") + name

    def _groups_of(self, claims: Obj) -> list[str]:
        claim = self._groups.get("claim")
        if claim and claim in claims:
            value = claims[claim]
            groups = [] if value is None else [value] if isinstance(value, str) else value
            if not isinstance(groups, list) or not all(isinstance(g, str) for g in groups):
                raise Unauthorized(f'oidc: parse groups claim "{claim}": {_not_a("string", value)}')
            prefix = self._groups.get("prefix") or ""
            return [prefix + g for g in groups]
        expression = self._groups.get("expression")
        if not expression:
            return []
        what = "oidc: error evaluating group claim expression"
        return _strings(_evaluate(expression, {"claims": _as_go(claims)}, what), what)

    def _uid_of(self, claims: Obj) -> str:
        claim, expression = self._uid.get("claim"), self._uid.get("expression")
        if claim:
            return _string(claims, claim, f'oidc: parse uid claim "{claim}"')
        if not expression:
            return ""
        what = "oidc: error evaluating uid claim expression"
        uid = _evaluate(expression, {"claims": _as_go(claims)}, what)
        if not isinstance(uid, str):
            raise Unauthorized(f"{what}: uid claim expression must return a string")
        return uid

    def _extra_of(self, claims: Obj) -> dict[str, list[str]]:
        extra: dict[str, list[str]] = {}
        if isinstance(claims.get("jti"), str) and claims["jti"]:
            extra[CREDENTIAL_ID] = [f"JTI={claims['jti']}"]
        for mapping in self._extra:
            expression = mapping["valueExpression"]
            what = f"oidc: error evaluating extra claim expression: {expression}"
            values = _strings(_evaluate(expression, {"claims": _as_go(claims)}, what), what)
            if values:
                extra[mapping["key"]] = values
        return extra


def _evaluate(text: str, variables: Obj, what: str) -> Any:
    """`variables`: one, by its name."""
    try:
        return compile_over(next(iter(variables)), text).evaluate(variables)
    except EvaluationError as e:
        raise Unauthorized(f"{what}: expression '{text}' resulted in error: {e}") from None


def _as_go(value: Any) -> Any:
    """Every number of a token is a double."""
    if isinstance(value, dict):
        return {k: _as_go(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_as_go(v) for v in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _must_hold(rule: Obj, variables: Obj, what: str) -> None:
    text = rule["expression"]
    held = _evaluate(text, variables, what)
    if not isinstance(held, bool):
        raise Unauthorized(f"{what}: validation expression must return a boolean")
    if not held:
        raise Unauthorized(f"{what}: validation expression '{text}' failed: {rule.get('message') or ''}")


def _strings(value: Any, what: str) -> list[str]:
    """A string or a list of strings; what is empty is left out."""
    if value is None:
        return []
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise Unauthorized(f"{what}: {_LIST}")
    return [v for v in values if v]


def _string(claims: Obj, claim: str, what: str) -> str:
    if claim not in claims:
        raise Unauthorized(f"{what}: claim not present")
    value = claims[claim]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unauthorized(f"{what}: {_not_a('string', value)}")
    return value


def _not_a(wanted: str, value: Any) -> str:
    return f"json: cannot unmarshal {json_kind(value)} into Go value of type {wanted}"


def json_kind(value: Any) -> str:
    """As Go's decoder names it."""
    return next((name for type_, name in _GO_TYPES if isinstance(value, type_)), "null")
