"""One process of the test of traces over two: it starts a saga or goes on with it, and writes each span as a line.

Owns nothing but this process. With "start" it starts the saga and stands in its second step until it is killed; with
"go_on" it waits for the saga's end. Started by `test_traces_over_processes`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from atone import Context, Orchestrator, Saga, step
from atone.integrations.opentelemetry import OpenTelemetry
from atone.orchestrator import Limits

LEASE_SECONDS = 1.0


class Lines(SpanExporter):
    """Each span as a line of JSON, on the disk before anything else happens."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._path.open("a") as file:
            file.writelines(span.to_json(indent=None) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


class Trip(Saga[str]):
    """Two steps; what an instrumented client would send is written down."""

    def __init__(self, folder: Path, stands: bool) -> None:
        self.folder, self.stands = folder, stands

    def _send(self, ctx: Context[str]) -> None:
        headers: dict[str, str] = {}
        inject(headers)
        with (self.folder / "sent").open("a") as file:
            file.write(json.dumps({"instrumented": headers, "by_hand": dict(ctx.trace_headers)}) + "\n")

    @step(no_compensation="it has no effect")
    async def first(self, ctx: Context[str]) -> None:
        self._send(ctx)

    @step(no_compensation="it has no effect")
    async def second(self, ctx: Context[str]) -> None:
        self._send(ctx)
        if self.stands:
            sys.stdout.write("standing\n")
            sys.stdout.flush()
            await asyncio.Event().wait()


async def main(folder: Path, task: str) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Lines(folder / f"spans-{task}")))
    saga = Trip(folder, stands=task == "start")
    limits = Limits(lease_seconds=LEASE_SECONDS, poll_seconds=0.05)
    url = f"sqlite:///{folder / 'sagas.db'}"
    telemetry = OpenTelemetry(tracer_provider=provider, metrics=False)
    async with Orchestrator(url, sagas=[saga], limits=limits, telemetry=telemetry) as orchestrator:
        if task == "start":
            with provider.get_tracer("shop").start_as_current_span("request"):
                await orchestrator.start(Trip, "there", saga_id="1")
            await asyncio.Event().wait()
        await orchestrator.outcome(Trip, "1", timeout=30)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
