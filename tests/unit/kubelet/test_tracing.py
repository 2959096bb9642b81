"""A kubelet's spans: a pod's turn, and the runtime's calls in it."""

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from berg.kubelet.config import KubeletConfig, apply
from berg.kubelet.tracing import TracedCRI, TracedSyncer, Tracing
from berg.machinery.clock import FakeClock
from berg.runtime.api import cri_pb2 as pb
from berg.runtime.cri import CRIError

from .fakes import FakeCRI, pod


@pytest.fixture
def told():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test"), exporter


class Syncer:
    wake = "as it was"

    def __init__(self, cri):
        self.cri = cri

    async def sync(self, pod):
        await asyncio.gather(self.cri.version(pb.VersionRequest()), self.cri.list_images(pb.ListImagesRequest()))
        return True

    async def sync_terminating(self, pod, grace_s, change):
        await self.cri.stop_container(pb.StopContainerRequest(container_id="nope"))


async def test_calls_lie_in_the_turn_that_made_them(told):
    tracer, exporter = told
    cri = TracedCRI(FakeCRI(FakeClock()), tracer)
    syncer = TracedSyncer(Syncer(cri), tracer)
    assert await syncer.sync(pod("a")) is True and syncer.wake == "as it was"
    spans = {s.name: s for s in exporter.get_finished_spans()}
    turn = spans.pop("syncPod")
    assert turn.attributes["k8s.pod.name"] == "a" and turn.parent is None
    assert set(spans) == {"runtime.v1.RuntimeService/Version", "runtime.v1.ImageService/ListImages"}
    assert {s.parent.span_id for s in spans.values()} == {turn.context.span_id}


async def test_what_fails_is_marked(told):
    tracer, exporter = told
    failing = FakeCRI(FakeClock())

    async def refuse(request):
        raise CRIError(5, "no such container")

    failing.stop_container = refuse
    with pytest.raises(CRIError):
        await TracedSyncer(Syncer(TracedCRI(failing, tracer)), tracer).sync_terminating(pod("a"), None, None)
    assert [(s.name, s.status.is_ok) for s in exporter.get_finished_spans()] == [
        ("runtime.v1.RuntimeService/StopContainer", False),
        ("syncTerminatingPod", False),
    ]


def test_the_configuration_says_so():
    config = KubeletConfig()
    document = {"kind": "KubeletConfiguration", "tracing": {"endpoint": "localhost:4317", "samplingRatePerMillion": 1}}
    apply(config, document)
    assert config.tracing["samplingRatePerMillion"] == 1
    with pytest.raises(ValueError, match="sampling rate must be positive"):
        Tracing.of({"samplingRatePerMillion": -1}, "n")
