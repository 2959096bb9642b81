"""RBAC: roles, bindings, and the question whether a user's rules cover a request.

Bindings are compiled once into `subject → grants`; a user's grants are gathered once and kept; a decision is kept
under what was asked. All of it is thrown away when any role or binding changes, so the hot path is one
dictionary lookup.

Source: kubernetes plugin/pkg/auth/authorizer/rbac, pkg/registry/rbac/validation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from berg.apiserver.auth.authorization import NO_OPINION, AuthzAttributes, Decision, Verdict
from berg.apiserver.http.message import User
from berg.machinery.status import Obj

MAX_DECISIONS = 50_000
GROUP = "rbac.authorization.k8s.io"

Lister = Callable[[str], Iterable[Obj]]
"""all objects of `roles`, `rolebindings`, `clusterroles` or `clusterrolebindings`; not to be changed"""


class Rule:
    """One PolicyRule, ready to be asked."""

    __slots__ = ("groups", "names", "obj", "resources", "urls", "verbs")

    def __init__(self, rule: Obj) -> None:
        self.obj = rule
        self.verbs = frozenset(rule.get("verbs") or ())
        self.groups = frozenset(rule.get("apiGroups") or ())
        self.resources = frozenset(rule.get("resources") or ())
        self.names = frozenset(rule.get("resourceNames") or ())
        self.urls: tuple[str, ...] = tuple(rule.get("nonResourceURLs") or ())

    def covers(self, a: AuthzAttributes) -> bool:
        if a.verb not in self.verbs and "*" not in self.verbs:
            return False
        if not a.is_resource:
            return any(u == "*" or u == a.path or (u[-1:] == "*" and a.path.startswith(u[:-1])) for u in self.urls)
        if a.group not in self.groups and "*" not in self.groups:
            return False
        if self.names and a.name not in self.names:
            return False
        if "*" in self.resources:
            return True
        if a.subresource:
            return f"{a.resource}/{a.subresource}" in self.resources or f"*/{a.subresource}" in self.resources
        return a.resource in self.resources


@dataclass(slots=True, frozen=True)
class Grant:
    """What one binding gives. `namespace` "" is everywhere; `missing` says the role that is not there."""

    namespace: str
    rules: tuple[Rule, ...]
    missing: str = ""
    reason: str = ""
    """why it allows, in upstream's words"""


class RBACAuthorizer:
    def __init__(self, lister: Lister) -> None:
        self._lister = lister
        self._stale = True
        self._subjects: dict[tuple[str, str], list[Grant]] = {}
        self._roles: dict[tuple[str, str], tuple[Rule, ...]] = {}
        self._users: dict[tuple[str, tuple[str, ...]], list[Grant]] = {}
        self._decisions: dict[tuple[object, ...], Verdict] = {}

    def changed(self) -> None:
        """A role or binding has changed: nothing that was decided holds."""
        self._stale = True

    def authorize(self, a: AuthzAttributes) -> Verdict:
        if self._stale:
            self._compile()
        user = a.user
        asked = (user.name, user.groups, a.verb, a.group, a.resource, a.subresource, a.namespace, a.name)
        if not a.is_resource:
            asked = (user.name, user.groups, a.verb, a.path)  # type: ignore[assignment]
        verdict = self._decisions.get(asked)
        if verdict is None:
            verdict = self._decide(a)
            if len(self._decisions) >= MAX_DECISIONS:
                self._decisions.clear()
            self._decisions[asked] = verdict
        return verdict

    def _decide(self, a: AuthzAttributes) -> Verdict:
        missing: list[str] = []
        for grant in self._grants(a.user):
            if grant.namespace and grant.namespace != a.namespace:
                continue
            if grant.missing and grant.missing not in missing:
                missing.append(grant.missing)
            for rule in grant.rules:
                if rule.covers(a):
                    return Verdict(Decision.ALLOW, grant.reason)
        if not missing:
            return NO_OPINION
        text = missing[0] if len(missing) == 1 else f"[{', '.join(missing)}]"
        return Verdict(Decision.NO_OPINION, f"RBAC: {text}")

    def rules_for(self, user: User, namespace: str) -> list[Rule]:
        """All rules that hold for the user in the namespace ("": everywhere)."""
        if self._stale:
            self._compile()
        return [
            rule
            for grant in self._grants(user)
            if not grant.namespace or grant.namespace == namespace
            for rule in grant.rules
        ]

    def role_rules(self, role_ref: Obj, namespace: str) -> tuple[Rule, ...] | None:
        """The rules of the role that a binding names; None when there is no such role."""
        if self._stale:
            self._compile()
        owner = namespace if role_ref.get("kind") == "Role" else ""
        return self._roles.get((owner, role_ref.get("name", "")))

    # ---- compiling

    def _compile(self) -> None:
        self._stale = False
        self._users.clear()
        self._decisions.clear()
        self._subjects = {}
        self._roles = {}
        for plural in ("clusterroles", "roles"):
            for role in self._lister(plural):
                meta = role["metadata"]
                rules = tuple(Rule(r) for r in role.get("rules") or ())
                self._roles[meta.get("namespace", ""), meta["name"]] = rules
        for plural in ("clusterrolebindings", "rolebindings"):
            for binding in self._lister(plural):
                self._bind(binding)

    def _bind(self, binding: Obj) -> None:
        namespace = binding["metadata"].get("namespace", "")
        ref = binding.get("roleRef") or {}
        is_role = ref.get("kind") == "Role"
        rules = self._roles.get((namespace if is_role else "", ref.get("name", "")))
        missing = ""
        if rules is None:
            rules = ()
            resource = "role" if is_role else "clusterrole"
            missing = f'{resource}.{GROUP} "{ref.get("name", "")}" not found'
        name = binding["metadata"]["name"]
        shown = f'RoleBinding "{name}/{namespace}"' if namespace else f'ClusterRoleBinding "{name}"'
        for subject in binding.get("subjects") or ():
            key = _subject_key(subject, namespace)
            if key is not None:
                role = f'{ref.get("kind")} "{ref.get("name")}"'
                reason = f"RBAC: allowed by {shown} of {role} to {_describe(subject, namespace)}"
                grant = Grant(namespace, rules, missing, reason)
                self._subjects.setdefault(key, []).append(grant)

    def _grants(self, user: User) -> list[Grant]:
        key = (user.name, user.groups)
        grants = self._users.get(key)
        if grants is None:
            grants = list(self._subjects.get(("User", user.name), ()))
            for group in user.groups:
                grants += self._subjects.get(("Group", group), ())
            if len(self._users) > 10_000:
                self._users.clear()
            self._users[key] = grants
        return grants


def _subject_key(subject: Obj, namespace: str) -> tuple[str, str] | None:
    match subject.get("kind"):
        case "User":
            return "User", subject.get("name", "")
        case "Group":
            return "Group", subject.get("name", "")
        case "ServiceAccount":
            owner = subject.get("namespace") or namespace
            return ("User", f"system:serviceaccount:{owner}:{subject.get('name', '')}") if owner else None
    return None


def _describe(subject: Obj, namespace: str) -> str:
    name = subject.get("name", "")
    if subject.get("kind") == "ServiceAccount":
        name = f"{name}/{subject.get('namespace') or namespace}"
    return f'{subject.get("kind")} "{name}"'


# ---- no escalation: nobody may grant what he does not have


def uncovered(owner: Sequence[Rule], wanted: Iterable[Rule]) -> list[Obj]:
    """The smallest pieces of `wanted` that `owner` does not cover."""
    return [piece for rule in wanted for piece in _pieces(rule) if not any(_covers_piece(o, piece) for o in owner)]


def _pieces(rule: Rule) -> Iterable[Obj]:
    """A rule broken down into rules of one verb, one group, one resource, one name."""
    obj = rule.obj
    for verb in obj.get("verbs") or ():
        for url in obj.get("nonResourceURLs") or ():
            yield {"nonResourceURLs": [url], "verbs": [verb]}
    for group in obj.get("apiGroups") or ():
        for resource in obj.get("resources") or ():
            for verb in obj.get("verbs") or ():
                names = obj.get("resourceNames") or ()
                if not names:
                    yield {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
                for name in names:
                    yield {"apiGroups": [group], "resources": [resource], "resourceNames": [name], "verbs": [verb]}


def _covers_piece(owner: Rule, piece: Obj) -> bool:
    verb = piece["verbs"][0]
    if "*" not in owner.verbs and verb not in owner.verbs:
        return False
    if "nonResourceURLs" in piece:
        url = piece["nonResourceURLs"][0]
        return any(u == "*" or u == url or (u[-1:] == "*" and url.startswith(u[:-1])) for u in owner.urls)
    if "*" not in owner.groups and piece["apiGroups"][0] not in owner.groups:
        return False
    resource = piece["resources"][0]
    if "*" not in owner.resources and resource not in owner.resources:
        _, slash, sub = resource.partition("/")
        if not slash or f"*/{sub}" not in owner.resources:
            return False
    return not owner.names or ("resourceNames" in piece and piece["resourceNames"][0] in owner.names)


def describe(piece: Obj) -> str:
    """`{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`, as refusals list them."""

    def quoted(values: Sequence[str]) -> str:
        return "[" + " ".join('"' + v + '"' for v in values) + "]"

    names = (
        ("nonResourceURLs", "NonResourceURLs"),
        ("apiGroups", "APIGroups"),
        ("resources", "Resources"),
        ("resourceNames", "ResourceNames"),
        ("verbs", "Verbs"),
    )
    return "{" + ", ".join(f"{shown}:{quoted(piece[key])}" for key, shown in names if key in piece) + "}"
