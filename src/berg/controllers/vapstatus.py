"""ValidatingAdmissionPolicies: which generation has been looked at.

Source: pkg/controller/validatingadmissionpolicystatus.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.machinery.resources import resource


class ValidatingAdmissionPolicyStatusController(APIController):
    """Differs from upstream: expressions are not type-checked against the schemas of what they match, and so no
    `typeChecking` is reported; a wrong expression shows when it is evaluated."""

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
        if status.get("observedGeneration", 0) < generation:
            body = {**policy, "status": {**status, "observedGeneration": generation}}
            await self.client.update_status(self.resource, body)
