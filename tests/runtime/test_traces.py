"""One trace for each saga: its spans, what they say, how they hang together, and what participants are sent.

The SDK is the real one; spans are kept in memory.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode

from atone import Compensated, Completed, Context, Landed, Reject, Saga, Tried, step
from atone.blocking import BlockingOrchestrator
from atone.errors import ConflictingStart, DefinitionError
from atone.integrations.opentelemetry import OpenTelemetry, Tracing
from atone.orchestrator import Orchestrator
from tests.runtime.watched import Traces, context_of, linked, parent_of
from tests.runtime.world import (
    AT_ONCE,
    Landing,
    Order,
    PlaceOrder,
    World,
    crashing,
    hangs,
    lands,
    limits,
    raises,
    run,
    sqlite,
)

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def traces() -> Traces:
    """A provider of its own."""
    return Traces()


def _opened(path: Path, *sagas: Saga[Any], telemetry: Any = (), **other: Any) -> Orchestrator:
    return Orchestrator(sqlite(path), sagas=list(sagas), limits=limits(**other), telemetry=telemetry)


async def _ordered(path: Path, world: World, telemetry: Any, **start: Any) -> Any:
    async with _opened(path, PlaceOrder(world), telemetry=telemetry) as orchestrator:
        return await orchestrator.execute(PlaceOrder, Order(), saga_id="1", **start)


def test_a_saga_is_one_trace_with_a_span_for_each_attempt(tmp_path: Path, traces: Traces) -> None:
    """Start, three steps and the end; all below the start, and each says what it is about."""
    assert isinstance(run(_ordered(tmp_path, World(), traces.telemetry)), Completed)
    assert sorted(traces.names) == [
        "saga PlaceOrder", "saga PlaceOrder completed", "step charge", "step reserve", "step ship",
    ]  # fmt: skip
    assert len(traces.trace_ids()) == 1
    start, charge = traces.one("saga PlaceOrder"), traces.one("step charge")
    assert start.kind is SpanKind.PRODUCER
    assert parent_of(start) is None
    assert {parent_of(span) for span in traces.spans if span is not start} == {context_of(start).span_id}
    assert dict(charge.attributes or {}) == {
        "atone.saga.name": "PlaceOrder", "atone.saga.version": 1, "atone.saga.id": "1", "atone.tenant": "default",
        "atone.step": "charge", "atone.operation": "action", "atone.attempt": 1, "atone.outcome": "succeeded",
    }  # fmt: skip


def test_a_repeat_points_to_the_attempt_before_it_and_an_undo_to_its_action(tmp_path: Path, traces: Traces) -> None:
    """An attempt without an answer is an error with the type of what was raised; a rejection is an answer."""
    world = World()
    world.script("charge", raises(ConnectionError("reset")), lands)
    world.script("ship", raises(Reject("no carrier")))
    assert isinstance(run(_ordered(tmp_path, world, traces.telemetry)), Compensated)
    first, second = traces.all("step charge")
    assert (first.attributes or {})["atone.outcome"] == "unknown"
    assert (first.attributes or {})["error.type"] == "ConnectionError"
    assert first.status.status_code is StatusCode.ERROR
    assert linked(second) == [context_of(first).span_id]
    ship = traces.one("step ship")
    assert (ship.attributes or {})["atone.outcome"] == "rejected"
    assert ship.status.status_code is StatusCode.UNSET
    refund = traces.one("compensate charge")
    assert linked(refund) == [context_of(second).span_id]
    assert (refund.attributes or {})["atone.operation"] == "compensation"
    assert "saga PlaceOrder compensated" in traces.names
    assert len(traces.trace_ids()) == 1


class Asked(Saga[Order], late_grace=0):
    """A step that is in doubt, and says so when it is probed."""

    @step(retry=AT_ONCE, timeout=0.05, no_compensation="it has no effect")
    async def act(self, ctx: Context[Order]) -> str:
        await asyncio.Event().wait()
        return "never"

    @act.probe
    async def ask(self, ctx: Context[Order], tried: Tried[str]) -> Landed[str]:
        return Landed("it did")


def test_a_probe_and_a_time_out_have_spans_of_their_own(tmp_path: Path, traces: Traces) -> None:
    """The attempt says that its time was up, the probe what it found."""

    async def main() -> None:
        async with _opened(tmp_path, Asked(), telemetry=traces.telemetry) as orchestrator:
            await orchestrator.execute(Asked, Order(), saga_id="1")

    run(main())
    act, probe = traces.one("step act"), traces.one("probe act")
    assert (act.attributes or {})["atone.outcome"] == "timed_out"
    assert (probe.attributes or {})["atone.outcome"] == "landed"
    assert linked(probe) == [context_of(act).span_id]


def test_the_starters_trace_goes_on_in_the_saga(tmp_path: Path, traces: Traces) -> None:
    """Who starts within a span finds the saga below that span."""

    async def main() -> None:
        with traces.tracer.start_as_current_span("request"):
            await _ordered(tmp_path, World(), traces.telemetry)

    run(main())
    assert len(traces.trace_ids()) == 1
    assert parent_of(traces.one("saga PlaceOrder")) == context_of(traces.one("request")).span_id


def test_the_attempts_span_is_current_while_user_code_runs(tmp_path: Path, traces: Traces) -> None:
    """An instrumented client propagates by itself; the header values are there for any other. Also in a thread."""
    seen: list[tuple[int, str]] = []

    def look(ctx: Context[Order]) -> None:
        here = trace.get_current_span().get_span_context()
        seen.append((here.span_id, ctx.trace_headers["traceparent"]))

    class Both(Saga[Order]):
        @step(no_compensation="it has no effect")
        async def on_the_loop(self, ctx: Context[Order]) -> None:
            look(ctx)
            await asyncio.sleep(0)
            look(ctx)

        @step(no_compensation="it has no effect")
        def in_a_thread(self, ctx: Context[Order]) -> None:
            look(ctx)

    async def main() -> None:
        async with _opened(tmp_path, Both(), telemetry=traces.telemetry) as orchestrator:
            await orchestrator.execute(Both, Order(), saga_id="1")
            assert not trace.get_current_span().get_span_context().is_valid

    run(main())
    loop, thread = context_of(traces.one("step on_the_loop")), context_of(traces.one("step in_a_thread"))
    assert [span for span, _ in seen] == [loop.span_id, loop.span_id, thread.span_id]
    assert {header for _, header in seen} == {
        f"00-{found.trace_id:032x}-{found.span_id:016x}-01" for found in (loop, thread)
    }


def test_a_crash_leaves_the_trace_whole(tmp_path: Path) -> None:
    """Another worker goes on in the same trace; its claim points to the start, its first call to the claim."""
    before, after = Traces(), Traces()
    world = World()

    async def main() -> None:
        world.script("charge", hangs)
        async with crashing(tmp_path, PlaceOrder(world), telemetry=before.telemetry) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
        async with _opened(tmp_path, PlaceOrder(world), telemetry=after.telemetry) as orchestrator:
            assert isinstance(await orchestrator.outcome(PlaceOrder, "1", timeout=20), Completed)

    run(main())
    start, claim, charge = before.one("saga PlaceOrder"), after.one("saga PlaceOrder claimed"), after.one("step charge")
    assert before.trace_ids() == after.trace_ids() == {context_of(start).trace_id}
    assert linked(claim) == [context_of(start).span_id]
    assert linked(charge) == [context_of(claim).span_id]
    assert (charge.attributes or {})["atone.attempt"] == 2
    assert parent_of(charge) == context_of(start).span_id


def test_a_context_that_is_given_along_needs_no_opentelemetry(tmp_path: Path) -> None:
    """It is stored, survives a crash, and is handed to the participants."""
    world = World()
    sent: list[dict[str, str]] = []

    async def tells(at: Landing) -> Any:
        sent.append(dict(at.ctx.trace_headers))
        return at.land()

    async def main() -> None:
        world.always("reserve", tells)
        world.script("charge", hangs)
        world.always("charge", tells)
        headers = {"traceparent": PARENT, "tracestate": "vendor=one,other=two", "cookie": "secret"}
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1", trace=headers)
            await world.reached("charge")
        async with _opened(tmp_path, PlaceOrder(world)) as orchestrator:
            await orchestrator.outcome(PlaceOrder, "1", timeout=20)

    run(main())
    assert sent == [{"traceparent": PARENT, "tracestate": "vendor=one,other=two"}] * 2


def test_a_saga_without_a_context_sends_none_and_stores_none(tmp_path: Path) -> None:
    """Nothing about traces is in its journal."""
    world = World()
    sent: list[Any] = []

    async def tells(at: Landing) -> Any:
        sent.append(dict(at.ctx.trace_headers))
        return at.land()

    world.always("reserve", tells)
    run(_ordered(tmp_path, world, (), trace={"traceparent": "garbage"}))
    assert sent == [{}]
    assert b"trace" not in (tmp_path / "sagas.db").read_bytes().replace(b"traceback", b"")


def test_another_trace_context_is_no_conflict(tmp_path: Path, traces: Traces) -> None:
    """A start that is repeated within another trace finds the saga, which stays in its first trace."""
    world = World()

    async def main() -> None:
        async with _opened(tmp_path, PlaceOrder(world), telemetry=traces.telemetry) as orchestrator:
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1", trace={"traceparent": PARENT})
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1")
            with pytest.raises(ConflictingStart):
                await orchestrator.start(PlaceOrder, Order(total=7), saga_id="1")

    run(main())
    made, found, refused = traces.all("saga PlaceOrder")
    assert [(span.attributes or {})["atone.saga.made"] for span in (made, found, refused)] == [True, False, False]
    assert context_of(made).trace_id == int(PARENT[3:35], 16)
    assert context_of(found).trace_id != context_of(made).trace_id
    assert (refused.attributes or {})["error.type"] == "atone.errors.ConflictingStart"
    assert {context_of(one).trace_id for one in traces.spans if one.name.startswith("step")} == {
        context_of(made).trace_id
    }


def test_a_saga_that_nobody_traced_gets_a_trace_from_the_worker_that_does(tmp_path: Path, traces: Traces) -> None:
    """Its claim is the root, and what the worker does with it hangs below."""
    world = World()

    async def main() -> None:
        world.script("charge", hangs)
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1")
            await world.reached("charge")
        async with _opened(tmp_path, PlaceOrder(world), telemetry=traces.telemetry) as orchestrator:
            await orchestrator.outcome(PlaceOrder, "1", timeout=20)

    run(main())
    claim = traces.one("saga PlaceOrder claimed")
    assert parent_of(claim) is None
    assert {parent_of(span) for span in traces.spans if span is not claim} == {context_of(claim).span_id}


def test_without_an_sdk_the_callers_context_is_passed_on(tmp_path: Path) -> None:
    """The API alone makes no spans, yet what came with the request reaches the participants."""
    world = World()
    sent: list[dict[str, str]] = []

    async def tells(at: Landing) -> Any:
        sent.append(dict(at.ctx.trace_headers))
        return at.land()

    world.always("reserve", tells)
    no_sdk = OpenTelemetry(tracer_provider=trace.NoOpTracerProvider())
    run(_ordered(tmp_path, world, no_sdk, trace={"traceparent": PARENT, "tracestate": "a=b"}))
    assert sent == [{"traceparent": PARENT, "tracestate": "a=b"}]


def test_a_blocking_start_belongs_to_the_callers_span(tmp_path: Path, traces: Traces) -> None:
    """The loop is in another thread; the trace goes there all the same."""
    store = sqlite(tmp_path)
    with (
        BlockingOrchestrator(
            store, sagas=[PlaceOrder(World())], limits=limits(), telemetry=[traces.telemetry]
        ) as orchestrator,
        traces.tracer.start_as_current_span("view"),
    ):
        orchestrator.execute(PlaceOrder, Order(), saga_id="1")
    assert parent_of(traces.one("saga PlaceOrder")) == context_of(traces.one("view")).span_id


def test_a_sampling_decision_is_respected(tmp_path: Path, traces: Traces) -> None:
    """Who started it was not sampled: neither is the saga, and what it sends says so, instrumented or not."""
    world = World()
    sent: list[dict[str, str]] = []

    async def tells(at: Landing) -> Any:
        instrumented: dict[str, str] = {}
        inject(instrumented)
        sent.extend([instrumented, dict(at.ctx.trace_headers)])
        return at.land()

    world.always("reserve", tells)
    run(_ordered(tmp_path, world, traces.telemetry, trace={"traceparent": PARENT[:-1] + "0"}))
    assert traces.names == []
    assert sent[0] == sent[1]
    assert sent[0]["traceparent"].startswith(PARENT[:35])
    assert sent[0]["traceparent"].endswith("-00")


def test_a_worker_keeps_to_the_starters_sampling(tmp_path: Path) -> None:
    """Its own sampler, which takes everything, is not asked: half a trace helps nobody."""
    world, traces = World(), Traces(sampler=ALWAYS_ON)

    async def main() -> None:
        world.script("charge", hangs)
        async with crashing(tmp_path, PlaceOrder(world)) as (orchestrator, _):
            await orchestrator.start(PlaceOrder, Order(), saga_id="1", trace={"traceparent": PARENT[:-1] + "0"})
            await world.reached("charge")
        async with _opened(tmp_path, PlaceOrder(world), telemetry=traces.telemetry) as orchestrator:
            await orchestrator.outcome(PlaceOrder, "1", timeout=20)

    run(main())
    assert traces.names == []


def test_something_else_than_an_observer_is_refused(tmp_path: Path) -> None:
    """The class instead of an object is the usual slip."""
    for wrong in (OpenTelemetry, "otel", [object()], 7):
        with pytest.raises(DefinitionError, match="OpenTelemetry"):
            Orchestrator(sqlite(tmp_path), sagas=[PlaceOrder(World())], telemetry=wrong)


def test_an_observer_that_fails_hurts_nobody(tmp_path: Path, traces: Traces, caplog: pytest.LogCaptureFixture) -> None:
    """The saga ends, the other observer hears it, and the failure is logged once, without its text."""

    class Broken(Tracing):
        def follow(self, saga: Any) -> Any:
            raise ValueError("a secret")

        def committed(self, turns: int, seconds: float) -> None:
            raise ValueError("a secret")

    broken = Broken(traces.provider)
    assert isinstance(run(_ordered(tmp_path, World(), [broken, traces.telemetry])), Completed)
    assert "step ship" in traces.names
    said = [record.getMessage() for record in caplog.records if record.name == "atone.telemetry"]
    assert len(said) == len(set(said)) == 2
    assert "secret" not in caplog.text
