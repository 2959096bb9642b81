"""ResourceClaims: made for pods from templates, reserved for the pods that use them, freed and deleted after.

Source: pkg/controller/resourceclaim.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.controllers.objects import copied
from berg.controllers.ownership import BY_CONTROLLER, api_ref, index_by_controller
from berg.controllers.pods import is_finished
from berg.machinery import meta
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

POD_CLAIM = "resource.kubernetes.io/pod-claim-name"
FINALIZER = "resource.kubernetes.io/delete-protection"
CLAIMS = "resourceclaims.resource.k8s.io"
BY_POD_CLAIM = "pod-claim"


class ResourceClaimController(APIController):
    name = "resourceclaim-controller"
    component = "resource_claim"
    workers = 10

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource, self.pod_resource = resource(CLAIMS), resource("pods")
        self.pods, self.claims = ctx.informer("pods"), ctx.informer(CLAIMS)
        self.templates = ctx.informer("resourceclaimtemplates.resource.k8s.io")
        index_by_controller(self.claims)
        self.pods.add_index(BY_POD_CLAIM, lambda p: [f"{meta.namespace(p)}/{n}" for n in _claim_names(p)])
        self.claim_queue = self.add_loop(self.sync_claim, workers=5)
        self.pods.add_handler(self._pod, lambda old, new: self._pod(new), self._pod_gone)
        self.claims.add_handler(self._claim, lambda old, new: self._claim(new), self._claim_gone)
        self.templates.add_handler(self._template)

    def _pod(self, pod: Obj) -> None:
        if not pod["spec"].get("resourceClaims"):
            return
        if is_finished(pod) or meta.is_deleting(pod):
            self._pod_gone(pod)
        else:
            self.enqueue(pod)

    def _pod_gone(self, pod: Obj) -> None:
        for claim in self._owned(pod):
            self.claim_queue.add(meta.key(claim))
        for name in _claim_names(pod):
            self.claim_queue.add(f"{meta.namespace(pod)}/{name}")

    def _claim(self, claim: Obj) -> None:
        self.claim_queue.add(meta.key(claim))

    def _claim_gone(self, claim: Obj) -> None:
        for pod in self.pods.lister.by_index(BY_POD_CLAIM, meta.key(claim)):
            self._pod(pod)

    def _template(self, template: Obj) -> None:
        for pod in self.pods.lister.list(meta.namespace(template)):
            if any(c.get("resourceClaimTemplateName") == meta.name(template) for c in _spec_claims(pod)):
                self._pod(pod)

    def _owned(self, pod: Obj) -> list[Obj]:
        return self.claims.lister.by_index(BY_CONTROLLER, meta.uid(pod))

    # -- pods

    async def reconcile(self, key: str) -> None:
        pod = self.pods.lister.get_key(key)
        if pod is None or is_finished(pod) or meta.is_deleting(pod):
            return
        statuses = {s["name"]: s for s in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
        changed = False
        for entry in _spec_claims(pod):
            if not entry.get("resourceClaimTemplateName"):
                continue
            known = statuses.get(entry["name"], {}).get("resourceClaimName")
            if known and self.claims.lister.get(meta.namespace(pod), known) is not None:
                continue
            try:
                made = await self._make(pod, entry)
            except ApiError as e:
                text = f"PodResourceClaim {entry['name']}: {e.message}"
                self.event(pod, "Warning", "FailedResourceClaimCreation", text)
                raise
            if known != made:
                statuses[entry["name"]] = {"name": entry["name"], "resourceClaimName": made}
                changed = True
        if changed:
            patch = {"status": {"resourceClaimStatuses": list(statuses.values())}}
            await self.client.patch(
                self.pod_resource, meta.namespace(pod), meta.name(pod), patch, type="strategic", subresource="status"
            )

    async def _make(self, pod: Obj, entry: Obj) -> str:
        """The claim's name. One that is there already from an earlier attempt is taken."""
        for claim in self._owned(pod):
            if meta.annotations(claim).get(POD_CLAIM) == entry["name"] and not meta.is_deleting(claim):
                return meta.name(claim)
        template = self.templates.lister.get(meta.namespace(pod), entry["resourceClaimTemplateName"])
        if template is None:
            name = entry["resourceClaimTemplateName"]
            raise ApiError(
                404, "NotFound", f'resource claim template "{name}": resourceclaimtemplates "{name}" not found'
            )
        md = template["spec"].get("metadata") or {}
        claim = {
            "metadata": {
                "generateName": f"{meta.name(pod)}-{entry['name']}-",
                "namespace": meta.namespace(pod),
                "labels": md.get("labels") or {},
                "annotations": {**(md.get("annotations") or {}), POD_CLAIM: entry["name"]},
                "ownerReferences": [api_ref(pod, self.pod_resource)],
            },
            "spec": copied(template["spec"]["spec"]),
        }
        made = await self.client.create(self.resource, claim)
        # Seen at once, so that a second pass before the informer's event does not make another.
        self.ctx.informers.informer(self.resource).upsert({**made, "kind": self.resource.kind})
        return meta.name(made)

    # -- claims

    async def sync_claim(self, key: str) -> None:
        claim = self.claims.lister.get_key(key)
        if claim is None:
            return
        status = claim.get("status") or {}
        reserved = status.get("reservedFor") or []
        left = [r for r in reserved if not await self._is_over(meta.namespace(claim), r)]
        if left != reserved:
            status = {**status, "reservedFor": left}
            if not left:
                status.pop("reservedFor")
                if meta.is_deleting(claim) or self._owner_is_over(claim):
                    status.pop("allocation", None)
            claim = await self.client.update_status(self.resource, {**claim, "status": status})
        finalizers = claim["metadata"].get("finalizers") or []
        if meta.is_deleting(claim) and not left and "allocation" in status:
            status = {k: v for k, v in status.items() if k != "allocation"}
            claim = await self.client.update_status(self.resource, {**claim, "status": status})
        if "allocation" not in status and FINALIZER in finalizers:
            md = {**claim["metadata"], "finalizers": [f for f in finalizers if f != FINALIZER]}
            claim = await self.client.update(self.resource, {**claim, "metadata": md})
        if not left and self._owner_is_over(claim) and not meta.is_deleting(claim):
            try:
                await self.client.delete(self.resource, meta.namespace(claim), meta.name(claim), uid=meta.uid(claim))
            except ApiError as e:
                if e.code not in (404, 409):
                    raise

    async def _is_over(self, namespace: str, consumer: Obj) -> bool:
        if consumer.get("resource") != "pods" or consumer.get("apiGroup"):
            return False
        pod = self.pods.lister.get(namespace, consumer["name"])
        if pod is None or meta.uid(pod) != consumer["uid"]:
            try:
                pod = await self.client.get(self.pod_resource, namespace, consumer["name"])
            except ApiError as e:
                if e.code != 404:
                    raise
                return True
            if meta.uid(pod) != consumer["uid"]:
                return True
        return is_finished(pod) or (meta.is_deleting(pod) and not pod["spec"].get("nodeName"))

    def _owner_is_over(self, claim: Obj) -> bool:
        ref = meta.owner_controller(claim)
        if ref is None or ref["kind"] != "Pod":
            return False
        pod = self.pods.lister.get(meta.namespace(claim), ref["name"])
        return pod is not None and meta.uid(pod) == ref["uid"] and is_finished(pod)


def _spec_claims(pod: Obj) -> list[Obj]:
    return pod["spec"].get("resourceClaims") or []


def _claim_names(pod: Obj) -> list[str]:
    made = [
        s["resourceClaimName"]
        for s in (pod.get("status") or {}).get("resourceClaimStatuses") or ()
        if s.get("resourceClaimName")
    ]
    return made + [c["resourceClaimName"] for c in _spec_claims(pod) if c.get("resourceClaimName")]
