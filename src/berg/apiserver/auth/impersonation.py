"""Impersonation: acting as someone else, each part of whom one must be allowed to impersonate.

Source: k8s.io/apiserver pkg/endpoints/filters/impersonation.go.
"""

from __future__ import annotations

from urllib.parse import unquote

from berg.apiserver.auth import authorization
from berg.apiserver.auth.authentication import AUTHENTICATED, UNAUTHENTICATED
from berg.apiserver.auth.authorization import Authorizer, AuthzAttributes
from berg.apiserver.http.message import Request, User
from berg.machinery import status

_EXTRA = "impersonate-extra-"


async def impersonate(request: Request, authorizer: Authorizer) -> User:
    """The user to act as. Raises Forbidden, or BadRequest when no user is named."""
    requestor = request.user
    assert requestor is not None
    headers = request.headers
    name = headers.get("impersonate-user", "")
    groups = tuple(g for g in headers.get("impersonate-group", "").split("\n") if g)
    uid = headers.get("impersonate-uid", "")
    extra = {unquote(h[len(_EXTRA) :]).lower(): headers[h].split("\n") for h in headers if h.startswith(_EXTRA)}
    if not name:
        if groups or uid or extra:
            raise status.internal_error(f"requested {[*groups, uid, *extra]} without impersonating a user")
        return requestor
    account = _service_account(name)
    asked = []
    if account is not None:
        asked.append(AuthzAttributes(requestor, "impersonate", "", "v1", "serviceaccounts", "", account[0], account[1]))
    else:
        asked.append(AuthzAttributes(requestor, "impersonate", "", "v1", "users", name=name))
    asked += [AuthzAttributes(requestor, "impersonate", "", "v1", "groups", name=g) for g in groups]
    asked += [
        AuthzAttributes(requestor, "impersonate", "authentication.k8s.io", "v1", "userextras", key, name=value)
        for key, values in extra.items()
        for value in values
    ]
    if uid:
        asked.append(AuthzAttributes(requestor, "impersonate", "authentication.k8s.io", "v1", "uids", name=uid))
    for question in asked:
        verdict = await authorization.settled(authorizer.authorize(question))
        if not verdict.allowed:
            raise authorization.forbidden(question, verdict.reason)
    if account is not None and not groups:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{account[0]}")
    if name == "system:anonymous":
        if UNAUTHENTICATED not in groups:
            groups = (*groups, UNAUTHENTICATED)
    elif AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
        groups = (*groups, AUTHENTICATED)
    for header in [h for h in headers if h.startswith("impersonate-")]:
        del headers[header]
    request.attributes["impersonator"] = requestor
    return User(name, uid, groups, extra)


def _service_account(name: str) -> tuple[str, str] | None:
    prefix, _, rest = name.partition("system:serviceaccount:")
    namespace, colon, account = rest.partition(":")
    return (namespace, account) if not prefix and colon and namespace and account else None
