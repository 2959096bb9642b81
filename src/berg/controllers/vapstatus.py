"""ValidatingAdmissionPolicies: which generation has been looked at, and what is wrong with the types of its
expressions.

Source: pkg/controller/validatingadmissionpolicystatus.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.machinery.codec import json
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj


class ValidatingAdmissionPolicyStatusController(APIController):
    name = "validatingadmissionpolicy-status-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("validatingadmissionpolicies.admissionregistration.k8s.io")
        self.policies = ctx.informer("validatingadmissionpolicies.admissionregistration.k8s.io")
        self.policies.add_handler(self.enqueue, self.enqueue_changed)

    async def reconcile(self, key: str) -> None:
        policy = self.policies.lister.get_key(key)
        if policy is None:
            return
        generation, status = policy["metadata"].get("generation", 0), policy.get("status") or {}
        if status.get("observedGeneration", 0) >= generation:
            return
        checked = {"expressionWarnings": found} if (found := await self._warnings(policy)) else {}
        body = {**status, "observedGeneration": generation, "typeChecking": checked}
        await self.client.update_status(self.resource, {**policy, "status": body})

    async def _warnings(self, policy: Obj) -> list[Obj]:
        from berg.controllers.policytypes import custom_versions, warnings  # CEL is loaded with the first policy

        custom = {v: await self._custom(*v) for v in custom_versions(policy)}
        return warnings(policy, custom)

    async def _custom(self, group: str, version: str) -> dict[str, tuple[str, Obj]]:
        """What discovery and the OpenAPI document say of a group's version: plural → kind and schema."""
        try:
            listed = json.loads(await self.client.request("GET", f"/apis/{group}/{version}"))
            document = json.loads(await self.client.request("GET", f"/openapi/v3/apis/{group}/{version}"))
        except ApiError as e:
            if e.code != 404:
                raise
            return {}
        schemas: dict[str, Obj] = {}
        for body in (document.get("components") or {}).get("schemas", {}).values():
            for kind in body.get("x-kubernetes-group-version-kind") or ():
                schemas[kind["kind"]] = body
        named = {r["name"]: r["kind"] for r in listed.get("resources") or () if "/" not in r["name"]}
        return {plural: (kind, schemas[kind]) for plural, kind in named.items() if kind in schemas}
