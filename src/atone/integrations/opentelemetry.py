"""Traces and metrics for OpenTelemetry, on its API alone: which SDK there is, and where they go, the application says.

Owns the spans of a saga and how they hang together: one trace from the start on, whichever workers carry it, found
again by the context that is stored with the saga. Must not put a payload, a reason or an exception's text into a span.
Told by `_runtime.telemetry`, made by users. Needs the `otel` extra.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

try:
    from opentelemetry import context, trace
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError('OpenTelemetry\'s API is missing. Run: pip install "atone[otel]"') from missing
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from atone._runtime.measures import COUNTERS, GAUGES, HISTOGRAMS, Measures, Metric, Tell
from atone._runtime.trace_context import TraceContext, read_text
from atone.telemetry import CENSUS_SECONDS, Attempted, AttemptObserver, Observer, SagaObserver, StartObserver, Subject

# What an attempt is called in a trace; the names are few, so that a backend can group by them.
_VERBS = {"action": "step", "compensation": "compensate", "probe": "probe"}
_ATTRIBUTES = {
    "saga": "atone.saga.name",
    "status": "atone.saga.status",
    "step": "atone.step",
    "operation": "atone.operation",
    "outcome": "atone.outcome",
    "trigger": "atone.trigger",
    "why": "atone.why",
    "where": "atone.where",
}
_FINE = frozenset({"succeeded", "rejected", "interrupted", "landed", "not_landed", "cannot_tell"})


class OpenTelemetry(Observer):
    """Trace sagas, and measure them.

    One trace for each saga, with a span for each start, claim, attempt, compensation, probe and end; while user code
    runs, its attempt's span is the current one. The providers are the application's global ones if they are left out;
    `traces=False` or `metrics=False` leaves one half out. `census_seconds` is how often unfinished sagas are counted;
    None: never, and the gauges of them are left out.
    """

    def __init__(
        self,
        *,
        traces: bool = True,
        metrics: bool = True,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        census_seconds: float | None = CENSUS_SECONDS,
    ) -> None:
        tracing = [Tracing(tracer_provider)] if traces else []
        metering = [Metering(meter_provider, census_seconds)] if metrics else []
        self.parts = (*tracing, *metering)


class Metering(Measures):
    """The metrics, on OpenTelemetry's API."""

    def __init__(self, meter_provider: MeterProvider | None, census_seconds: float | None) -> None:
        meter = get_meter("atone", meter_provider=meter_provider)
        super().__init__(_Instruments(meter), census_seconds)
        for metric in GAUGES:
            callback = partial(self._observe, metric)
            meter.create_observable_gauge(metric.name, [callback], unit=metric.unit, description=metric.about)

    def _observe(self, wanted: Metric, _options: CallbackOptions) -> Iterable[Observation]:
        found = (one for one in self.gauges() if one[0] == wanted)
        return [Observation(value, _attributes(metric, labels)) for metric, labels, value in found]


class _Instruments:
    def __init__(self, meter: Meter) -> None:
        self._counters = {one: meter.create_counter(one.name, one.unit, one.about) for one in COUNTERS}
        self._histograms = {
            one: meter.create_histogram(
                one.name, one.unit, one.about, explicit_bucket_boundaries_advisory=list(one.buckets)
            )
            for one in HISTOGRAMS
        }

    def counter(self, metric: Metric, labels: tuple[str, ...]) -> Tell:
        return partial(self._counters[metric].add, attributes=_attributes(metric, labels))

    def histogram(self, metric: Metric, labels: tuple[str, ...]) -> Tell:
        return partial(self._histograms[metric].record, attributes=_attributes(metric, labels))


def _attributes(metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
    """Return a metric's labels under the names that spans use."""
    return {_ATTRIBUTES[name]: value for name, value in zip(metric.labels, labels, strict=True)}


class Tracing(Observer):
    """The spans, on OpenTelemetry's API."""

    def __init__(self, tracer_provider: trace.TracerProvider | None) -> None:
        self._tracer = trace.get_tracer("atone", tracer_provider=tracer_provider)

    def starting(self, saga: Subject) -> StartObserver:
        return _Start(self._tracer, saga)

    def follow(self, saga: Subject) -> SagaObserver:
        return _Saga(self._tracer, saga)


class _Start(StartObserver):
    """The saga's first span, around the start itself; every later one is its child."""

    def __init__(self, tracer: trace.Tracer, saga: Subject) -> None:
        given = _context_of(saga.trace)
        parent = None if given is None else _around(given)
        self._span = tracer.start_span(f"saga {saga.name}", parent, SpanKind.PRODUCER, _identity(saga))
        self.trace = _text_of(self._span.get_span_context())

    def ended(self, made: bool, error: str | None) -> None:
        self._span.set_attribute("atone.saga.made", made)
        _end(self._span, error)


class _Saga(SagaObserver):
    """The spans of one saga on this worker."""

    __slots__ = ("_around", "_claim", "_identity", "_last", "_name", "_parent", "_quiet", "_tracer")

    def __init__(self, tracer: trace.Tracer, saga: Subject) -> None:
        self._tracer = tracer
        self._name = f"saga {saga.name}"
        self._identity = _identity(saga)
        self._parent = _context_of(saga.trace)
        # Nothing but the saga's own context: what the worker's tasks were made in is no part of it.
        self._around = Context() if self._parent is None else _around(self._parent)
        # Who started it has decided for all; else a saga that is not sampled costs nearly as much as one that is.
        self._quiet = self._parent is not None and not self._parent.trace_flags.sampled
        self._claim: SpanContext | None = None
        self._last: dict[tuple[str, str], SpanContext] = {}

    def claimed(self) -> None:
        if self._quiet:
            return
        span = self._begin(f"{self._name} claimed", self._links(self._parent), {})
        span.end()
        self._claim = span.get_span_context()

    def settled(self, status: str) -> None:
        if self._quiet:
            return
        last = next(reversed(self._last.values()), self._claim)
        self._begin(f"{self._name} {status}", self._links(last), {"atone.saga.status": status}).end()

    def attempt(self, what: Attempted) -> AttemptObserver:
        if self._quiet:
            return _Unsampled(self._around)
        same = (what.step, what.operation)
        # A repeat points to the call before it, an undo or a probe to its action, a worker's first one to its claim.
        before = self._last.get(same) or self._last.get((what.step, "action")) or self._claim
        said = {"atone.step": what.step, "atone.operation": what.operation, "atone.attempt": what.attempt}
        span = self._begin(f"{_VERBS[what.operation]} {what.step}", self._links(before), said)
        self._last[same] = span.get_span_context()
        return _Attempt(span)

    def _begin(self, name: str, links: list[Link], said: dict[str, Any]) -> Span:
        span = self._tracer.start_span(name, self._around, attributes=self._identity | said, links=links)
        if self._parent is None and span.get_span_context().is_valid:
            # Its starter had no telemetry, so the trace begins here.
            self._parent = span.get_span_context()
            self._around = _around(self._parent)
        return span

    @staticmethod
    def _links(to: SpanContext | None) -> list[Link]:
        return [] if to is None or not to.is_valid else [Link(to)]


class _Unsampled(AttemptObserver):
    """An attempt of a saga that is not sampled: what it sends says so, and nothing is recorded."""

    __slots__ = ("_token",)

    def __init__(self, around: Context) -> None:
        self._token = context.attach(around)

    def returned(self) -> None:
        context.detach(self._token)


class _Attempt(AttemptObserver):
    """One attempt's span, which is the current one while user code runs."""

    __slots__ = ("_span", "_token", "headers")

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token = context.attach(trace.set_span_in_context(span, Context()))
        found = span.get_span_context()
        self.headers = _written(found).headers if found.is_valid else None

    def returned(self) -> None:
        context.detach(self._token)

    def ended(self, outcome: str, seconds: float, error: str | None) -> None:
        self._span.set_attribute("atone.outcome", outcome)
        _end(self._span, error, failed=outcome not in _FINE)


def _identity(saga: Subject) -> dict[str, Any]:
    return {
        "atone.saga.name": saga.name,
        "atone.saga.version": saga.version,
        "atone.saga.id": saga.saga_id,
        "atone.tenant": saga.tenant,
    }


def _end(span: Span, error: str | None, *, failed: bool = True) -> None:
    if error is not None:
        span.set_attribute("error.type", error)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
    span.end()


def _around(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def _context_of(text: str | None) -> SpanContext | None:
    found = None if text is None else read_text(text)
    if found is None:
        return None
    members = (member.partition("=") for member in found.tracestate.split(",") if member)
    return SpanContext(
        int(found.trace_id, 16),
        int(found.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if found.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState([(key, value) for key, _, value in members]),
    )


def _text_of(found: SpanContext) -> str | None:
    return _written(found).text if found.is_valid else None


def _written(found: SpanContext) -> TraceContext:
    state = found.trace_state.to_header() if found.trace_state else ""
    return TraceContext(f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled, state)
