"""PodCertificateRequests are deleted a quarter of an hour after they were made: kubelet and signer are done by then.

Source: KEP-4317, pkg/controller/certificates/cleaner/pcrcleaner.go.
"""

from __future__ import annotations

from berg.controllers.context import APIController, Context
from berg.machinery import meta
from berg.machinery.clock import parse_rfc3339
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj

LIFETIME_S = 15 * 60.0


class PodCertificateRequestCleaner(APIController):
    name = "podcertificaterequest-cleaner-controller"

    def __init__(self, ctx: Context) -> None:
        super().__init__(ctx)
        self.resource = resource("podcertificaterequests.certificates.k8s.io")
        self.requests = ctx.informer("podcertificaterequests.certificates.k8s.io")
        self.requests.add_handler(self._made)

    def _made(self, request: Obj) -> None:
        self.queue.add_after(meta.key(request), self._left(request))

    def _left(self, request: Obj) -> float:
        made = parse_rfc3339(request["metadata"]["creationTimestamp"])
        return LIFETIME_S - (self.clock.now() - made).total_seconds()

    async def reconcile(self, key: str) -> None:
        request = self.requests.lister.get_key(key)
        if request is None:
            return
        if (left := self._left(request)) > 0:  # another one of the same name
            self.queue.add_after(key, left)
            return
        md = request["metadata"]
        try:
            await self.client.delete(self.resource, md["namespace"], md["name"], uid=md["uid"])
        except ApiError as e:
            if e.code not in (404, 409):
                raise
