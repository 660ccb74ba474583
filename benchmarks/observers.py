"""What hears Atone while its telemetry is measured: nothing, Prometheus, OpenTelemetry's API alone, or with its SDK.

Owns how each is set up, as an application would do it: registries and providers of their own; with the SDK all sagas
or one in ten are sampled, and the batch processor hands spans to an exporter in memory. Must not measure. Used by
`side`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from atone.telemetry import Observer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

Telemetry: TypeAlias = Literal["none", "prometheus", "otel-api", "otel-metrics", "otel-sampled", "otel-sdk"]
TELEMETRIES: tuple[Telemetry, ...] = get_args(Telemetry)


def observers(telemetry: Telemetry) -> list[Observer]:
    """Return what is given to the orchestrator."""
    match telemetry:
        case "none":
            return []
        case "prometheus":
            return [_prometheus()]
        case "otel-api":
            return [_api()]
        case "otel-metrics":
            return [_sdk(traces=False)]
        case "otel-sampled":
            return [_sdk(traces=True, share=0.1)]
        case "otel-sdk":
            return [_sdk(traces=True)]


def _prometheus() -> Observer:
    from prometheus_client import CollectorRegistry

    from atone.integrations.prometheus import Prometheus

    return Prometheus(registry=CollectorRegistry())


def _api() -> Observer:
    """Return what an application has that installed the extra and no SDK: every instrument and span does nothing."""
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.trace import NoOpTracerProvider

    from atone.integrations.opentelemetry import OpenTelemetry

    return OpenTelemetry(tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())


def _sdk(*, traces: bool, share: float = 1.0) -> Observer:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    from atone.integrations.opentelemetry import OpenTelemetry

    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(share))
    provider.add_span_processor(BatchSpanProcessor(_exporter(), max_queue_size=65_536, max_export_batch_size=4_096))
    meters = MeterProvider([InMemoryMetricReader()])
    return OpenTelemetry(traces=traces, tracer_provider=provider, meter_provider=meters)


def _exporter() -> SpanExporter:
    """Return an exporter in memory that lets go of what it had: all spans of a run would keep the collector busy."""
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    class Forgetful(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            self.clear()
            return super().export(spans)

    return Forgetful()
