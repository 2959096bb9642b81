"""Traces by OpenTelemetry: what a component is told about them (`TracingConfiguration`), and where spans go then.

Spans leave in batches, over OTLP and gRPC without TLS, as upstream sends them. The packages come with
`pip install "berg[tracing]"`; a component that is not told to trace never imports them.

Source: k8s.io/component-base tracing.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from berg.machinery import status
from berg.machinery.status import FieldError, Obj

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

MILLION = 1_000_000
_SCHEMES = ("dns", "unix", "unix-abstract")
_NAMING = "See https://github.com/grpc/grpc/blob/master/doc/naming.md"
_LAST_WORDS_S = 5.0


class NotInstalled(ValueError):
    def __init__(self) -> None:
        super().__init__(
            "tracing is configured, but the OpenTelemetry packages are not installed: "
            'pip install "berg[tracing]" brings them'
        )


@dataclass(frozen=True, slots=True)
class TracingConfiguration:
    endpoint: str = "localhost:4317"
    sampling_rate_per_million: int = 0
    """of requests that do not come with a decision of their own"""

    @classmethod
    def of(cls, obj: Obj) -> TracingConfiguration:
        """From the fields `endpoint` and `samplingRatePerMillion`. Raises ValueError with all that is wrong."""
        endpoint, rate = obj.get("endpoint"), obj.get("samplingRatePerMillion")
        errors: list[FieldError] = []
        if rate is not None:
            if not isinstance(rate, int) or rate < 0:
                errors.append(status.invalid_value("samplingRatePerMillion", rate, "sampling rate must be positive"))
            elif rate > MILLION:
                why = "sampling rate per million must be less than or equal to one million"
                errors.append(status.invalid_value("samplingRatePerMillion", rate, why))
        if endpoint is not None:
            scheme = urlsplit(endpoint).scheme if "//" in endpoint else "dns"
            if scheme not in _SCHEMES:
                why = f"unsupported scheme: {scheme}.  Options are none, dns, unix, or unix-abstract.  {_NAMING}"
                errors.append(status.invalid_value("endpoint", endpoint, why))
        if errors:
            raise ValueError("; ".join(map(str, errors)))
        return cls(endpoint or cls().endpoint, rate or 0)


def needed() -> None:
    """Before anything is imported that builds on the packages. Raises NotInstalled."""
    try:
        import opentelemetry.exporter.otlp.proto.grpc.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError:
        raise NotInstalled from None


def provider(configuration: TracingConfiguration, service: str, instance: str = "") -> TracerProvider:
    """Raises NotInstalled."""
    needed()
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased

    attributes: dict[str, Any] = {"service.name": service}
    if instance:
        attributes["service.instance.id"] = instance
    rate = configuration.sampling_rate_per_million
    made = TracerProvider(
        ParentBased(TraceIdRatioBased(rate / MILLION) if rate else ALWAYS_OFF),
        Resource(attributes),
        shutdown_on_exit=False,
    )
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(configuration.endpoint, insecure=True)))
    return made


async def close(provider: TracerProvider) -> None:
    """What is left is sent, for as long as somebody who is leaving may be kept waiting."""
    loop, sent = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        if not loop.is_closed():
            loop.call_soon_threadsafe(sent.set)

    threading.Thread(target=shut_down, name="tracing-shutdown", daemon=True).start()
    try:
        async with asyncio.timeout(_LAST_WORDS_S):
            await sent.wait()
    except TimeoutError:
        pass
