"""PodSecurity: pods keep to the level that their namespace's labels enforce; workloads are warned of.

Source: k8s.io/pod-security-admission admission/admission.go.
"""

from __future__ import annotations

from berg.apiserver.admission.interface import CREATE, UPDATE, Api, Attributes, Plugin
from berg.apiserver.admission.pod_security.levels import (
    PREFIX,
    Level,
    Policy,
    describe,
    policy_of,
    violations,
)
from berg.apiserver.admission.refusal import forbidden
from berg.machinery import status
from berg.machinery.resources import resource
from berg.machinery.status import Obj

MAX_PODS = 3000
_TEMPLATES = frozenset(
    {
        "replicationcontrollers",
        "podtemplates",
        "replicasets.apps",
        "deployments.apps",
        "statefulsets.apps",
        "daemonsets.apps",
        "jobs.batch",
        "cronjobs.batch",
    }
)
_POD_SUBRESOURCES = ("", "ephemeralcontainers", "resize")


class PodSecurity(Plugin):
    name = "PodSecurity"
    validating = True
    operations = frozenset({CREATE, UPDATE})
    resources = frozenset({"pods", "namespaces", *_TEMPLATES})
    subresources = frozenset(_POD_SUBRESOURCES)

    def __init__(self, api: Api, config: Obj | None = None) -> None:
        super().__init__(api, config)
        given = self.config.get("defaults") or {}
        labels = {PREFIX + mode: value for mode, value in given.items()}
        self.defaults, faults = policy_of(labels, Policy())
        if faults:
            raise ValueError("; ".join(map(str, faults)))
        exempt = self.config.get("exemptions") or {}
        self.namespaces = frozenset(exempt.get("namespaces") or ())
        self.users = frozenset(exempt.get("usernames") or ())
        self.runtime_classes = frozenset(exempt.get("runtimeClasses") or ())
        about = ("request_operation", "resource", "subresource")
        self._exemptions = self.metrics.counter(
            "pod_security_exemptions_total", "[ALPHA] Requests that are exempt from Pod Security.", about
        )
        self._evaluations = self.metrics.counter(
            "pod_security_evaluations_total",
            "[ALPHA] Pods held against a level of Pod Security.",
            ("decision", "mode", "policy_level", "policy_version", *about),
        )

    async def validate(self, a: Attributes) -> None:
        if a.obj is None:
            return
        kind = a.resource.group_resource
        if kind == "namespaces":
            if not a.subresource:
                self._namespace(a, a.obj)
        elif kind == "pods":
            self._pod(a, a.obj)
        elif not a.subresource:
            self._template(a, a.obj)

    def _policy(self, namespace: Obj | None) -> tuple[Policy, str]:
        labels = ((namespace or {}).get("metadata") or {}).get("labels") or {}
        policy, errors = policy_of(labels, self.defaults)
        text = str(errors[0]) if len(errors) == 1 else f"[{', '.join(map(str, errors))}]" if errors else ""
        return policy, text

    def _exempt(self, a: Attributes) -> bool:
        why = "namespace" if a.namespace in self.namespaces else "user" if a.user.name in self.users else ""
        if why:
            a.audit_annotations[f"{PREFIX}exempt"] = why
            self._exemptions.inc(*_about(a))
        return bool(why)

    def _pod(self, a: Attributes, pod: Obj) -> None:
        if self._exempt(a):
            return
        policy, fault = self._policy(self.api.get(resource("namespaces"), "", a.namespace))
        if not fault and policy.privileged:
            a.audit_annotations[f"{PREFIX}enforce-policy"] = str(policy.enforce)
            self._count(a, "enforce", policy.enforce, denied=False)
            return
        if a.operation == UPDATE and not _significant(pod, a.old or {}):
            return
        self._evaluate(a, policy, fault, pod["metadata"], pod["spec"], enforce=True)

    def _template(self, a: Attributes, obj: Obj) -> None:
        if self._exempt(a):
            return
        policy, fault = self._policy(self.api.get(resource("namespaces"), "", a.namespace))
        if not fault and policy.warn.name == policy.audit.name == "privileged":
            return
        template = (
            obj.get("template") if a.resource.plural == "podtemplates" else (obj.get("spec") or {}).get("template")
        )
        if a.resource.plural == "cronjobs":
            job = (obj.get("spec") or {}).get("jobTemplate") or {}
            template = (job.get("spec") or {}).get("template")
        if template:
            self._evaluate(a, policy, fault, template.get("metadata") or {}, template.get("spec") or {}, enforce=False)

    def _evaluate(self, a: Attributes, policy: Policy, fault: str, metadata: Obj, spec: Obj, *, enforce: bool) -> None:
        if spec.get("runtimeClassName") in self.runtime_classes:
            a.audit_annotations[f"{PREFIX}exempt"] = "runtimeClass"
            self._exemptions.inc(*_about(a))
            return
        if fault:
            a.audit_annotations[f"{PREFIX}error"] = f"Failed to parse policy: {fault}"
        refusal = ""
        if enforce:
            a.audit_annotations[f"{PREFIX}enforce-policy"] = str(policy.enforce)
            found = violations(policy.enforce, metadata, spec)
            self._count(a, "enforce", policy.enforce, denied=bool(found))
            if found:
                refusal = f'violates PodSecurity "{policy.enforce}": {describe(found)}'
        if found := violations(policy.audit, metadata, spec):
            self._count(a, "audit", policy.audit, denied=True)
            text = f'would violate PodSecurity "{policy.audit}": {describe(found)}'
            a.audit_annotations[f"{PREFIX}audit-violations"] = text
        if refusal:
            raise forbidden(a, refusal)
        if found := violations(policy.warn, metadata, spec):
            self._count(a, "warn", policy.warn, denied=True)
            a.warnings.append(f'would violate PodSecurity "{policy.warn}": {describe(found)}')

    def _count(self, a: Attributes, mode: str, level: Level, *, denied: bool) -> None:
        version = str(level).partition(":")[2]
        self._evaluations.inc("deny" if denied else "allow", mode, level.name, version, *_about(a))

    def _namespace(self, a: Attributes, namespace: Obj) -> None:
        labels = namespace["metadata"].get("labels") or {}
        name = namespace["metadata"].get("name") or ""
        policy, errors = policy_of(labels, self.defaults)
        if a.operation == CREATE:
            if errors:
                raise status.invalid("", "Namespace", name, errors)
            self._warn_exempt(a, name, policy, labels)
            return
        old, old_errors = policy_of((a.old or {}).get("metadata", {}).get("labels") or {}, self.defaults)
        if errors and errors != old_errors:
            raise status.invalid("", "Namespace", name, errors)
        if policy.enforce == old.enforce or policy.enforce.name == "privileged":
            return
        if policy.enforce.minor == old.enforce.minor and policy.enforce.rank <= old.enforce.rank:
            return
        if name in self.namespaces:
            self._warn_exempt(a, name, policy, labels)
            return
        a.warnings.extend(self._existing(name, policy.enforce))

    def _warn_exempt(self, a: Attributes, name: str, policy: Policy, labels: Obj) -> None:
        if name not in self.namespaces or policy.privileged or policy == self.defaults:
            return
        modes = [
            f"{mode}={level}"
            for mode, level in (("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn))
            if level.name != "privileged" and (PREFIX + mode in labels or f"{PREFIX}{mode}-version" in labels)
        ]
        a.warnings.append(
            f'namespace "{name}" is exempt from Pod Security, and the policy ({", ".join(modes)}) will be ignored'
        )

    def _existing(self, namespace: str, level: Level) -> list[str]:
        """Warnings about the pods that are already there."""
        pods = self.api.list(resource("pods"), namespace)
        found: dict[str, list[str]] = {}
        for pod in pods[:MAX_PODS]:
            verdicts = violations(level, pod["metadata"], pod["spec"])
            if verdicts:
                found.setdefault(", ".join(v.reason for v in verdicts), []).append(pod["metadata"]["name"])
        warnings = []
        if len(pods) > MAX_PODS:
            warnings.append(
                f"new PodSecurity enforce level only checked against the first {MAX_PODS} of {len(pods)} existing pods"
            )
        if found:
            warnings.append(
                f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{level}"'
            )
        lines = []
        for reason, names in found.items():
            others = len(names) - 1
            more = "" if not others else " (and 1 other pod)" if others == 1 else f" (and {others} other pods)"
            lines.append(f"{min(names)}{more}: {reason}")
        return warnings + sorted(lines)


def _about(a: Attributes) -> tuple[str, str, str]:
    kind = a.resource.plural
    shown = "pod" if kind == "pods" else "namespace" if kind == "namespaces" else "controller"
    return a.operation.lower(), shown, a.subresource


def _significant(pod: Obj, old: Obj) -> bool:
    """A change that could make a pod worse: another image, another container."""
    spec, before = pod.get("spec") or {}, old.get("spec") or {}
    for key in ("containers", "initContainers"):
        if [c.get("image") for c in spec.get(key) or ()] != [c.get("image") for c in before.get(key) or ()]:
            return True
    known = {c.get("name"): c.get("image") for c in before.get("ephemeralContainers") or ()}
    return any(known.get(c.get("name")) != c.get("image") for c in spec.get("ephemeralContainers") or ())
