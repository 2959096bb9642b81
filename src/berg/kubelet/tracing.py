"""A kubelet's spans: each turn of a pod's worker, and in it every call to the container runtime.

    syncPod | syncTerminatingPod | syncTerminatedPod  >  runtime.v1.RuntimeService/RunPodSandbox, …

`KubeletConfiguration.tracing` (`endpoint`, `samplingRatePerMillion`) switches it on; without it none of this is
loaded, and nothing stands between a kubelet and its runtime.

Source: kubernetes pkg/kubelet/kubelet.go, k8s.io/cri-client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import SpanKind, Tracer

from berg.machinery import tracing
from berg.machinery.status import Obj
from berg.runtime import cri

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SCOPE = "kubelet"

Call = Callable[[Any], Awaitable[Any]]


class Tracing:
    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self.tracer: Tracer = provider.get_tracer(SCOPE)

    @classmethod
    def of(cls, configuration: Obj, node_name: str) -> Tracing:
        """Raises ValueError."""
        found = tracing.TracingConfiguration.of(configuration)
        return cls(tracing.provider(found, "kubelet", node_name))

    async def close(self) -> None:
        await tracing.close(self._provider)


class TracedCRI:
    """A runtime, each of its calls a span. What streams is passed on as it is."""

    def __init__(self, inner: cri.CRI, tracer: Tracer) -> None:
        self._inner = inner
        for method in cri.methods():
            call = getattr(inner, method.name, None)
            if call is not None and not method.streaming:
                setattr(self, method.name, _traced(call, method.path.lstrip("/"), tracer))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _traced(call: Call, name: str, tracer: Tracer) -> Call:
    attributes = {"rpc.method": name, "rpc.system.name": "grpc"}

    async def traced(request: Any) -> Any:
        with tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes):
            return await call(request)

    return traced


class TracedSyncer:
    """What a pod's worker does in one turn."""

    def __init__(self, inner: Any, tracer: Tracer) -> None:
        self._inner = inner
        self._tracer = tracer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def sync(self, pod: Obj) -> bool:
        with self._tracer.start_as_current_span("syncPod", attributes=_pod(pod)):
            done: bool = await self._inner.sync(pod)
            return done

    async def sync_terminating(self, pod: Obj, *more: Any) -> None:
        with self._tracer.start_as_current_span("syncTerminatingPod", attributes=_pod(pod)):
            await self._inner.sync_terminating(pod, *more)

    async def sync_terminated(self, pod: Obj) -> None:
        with self._tracer.start_as_current_span("syncTerminatedPod", attributes=_pod(pod)):
            await self._inner.sync_terminated(pod)


def _pod(pod: Obj) -> dict[str, str]:
    meta = pod["metadata"]
    name, namespace = meta.get("name", ""), meta.get("namespace", "")
    return {
        "k8s.pod.uid": meta.get("uid", ""),
        "k8s.pod": f"{namespace}/{name}",
        "k8s.pod.name": name,
        "k8s.namespace.name": namespace,
    }
