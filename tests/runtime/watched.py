"""OpenTelemetry for a test: the real SDK, with an exporter that keeps spans in memory.

Owns the provider and the ways to look at what was exported. Each test has its own; none touches the global one.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from atone.integrations.opentelemetry import OpenTelemetry


class Traces:
    """What was exported; `telemetry` is for the orchestrator."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")
        self.telemetry = OpenTelemetry(tracer_provider=self.provider)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """All that ended, in that order."""
        return self._exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        """What they are called."""
        return [span.name for span in self.spans]

    def one(self, name: str) -> ReadableSpan:
        """The only span of this name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def all(self, name: str) -> list[ReadableSpan]:
        """Every span of this name."""
        return [span for span in self.spans if span.name == name]

    def trace_ids(self) -> set[int]:
        """Which traces there are."""
        return {context_of(span).trace_id for span in self.spans}


def context_of(span: ReadableSpan) -> Any:
    """Return a span's own context."""
    assert span.context is not None
    return span.context


def parent_of(span: ReadableSpan) -> Any:
    """Return the id of a span's parent, or None."""
    return None if span.parent is None else span.parent.span_id


def linked(span: ReadableSpan) -> list[Any]:
    """Return the ids of the spans that a span is linked to."""
    return [link.context.span_id for link in span.links]
