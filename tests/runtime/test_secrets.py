"""What users put into a saga stays there: no input, result, reason or exception's text in a span, a metric or a log."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from atone import Compensated, Context, NeedsAttention, Reject, Saga, Tried, step
from atone.errors import StoreUnavailable
from atone.integrations.logs import JsonFormatter
from atone.integrations.opentelemetry import OpenTelemetry
from atone.integrations.prometheus import Prometheus
from atone.orchestrator import Orchestrator
from tests.runtime.faulty_store import FaultyStore
from tests.runtime.watched import Traces
from tests.runtime.world import AT_ONCE, Order, limits, run, sqlite

SECRET = "4111-1111-1111-1111"


class Leaky(Saga[Order], late_grace=0):
    """Everything that a user can say in it is a secret."""

    @step(retry=AT_ONCE, timeout=20)
    async def act(self, ctx: Context[Order]) -> str:
        return f"result {SECRET}"

    @act.compensation(retry=AT_ONCE)
    async def undo(self, ctx: Context[Order], tried: Tried[str]) -> None:
        if ctx.input.total == 1:
            raise ValueError(f"undo {SECRET}")

    @step(retry=AT_ONCE, timeout=20, no_compensation="it has no effect")
    async def fail(self, ctx: Context[Order]) -> None:
        raise ConnectionError(f"exception {SECRET}") if ctx.attempt == 1 else Reject(f"reason {SECRET}")


class Everything:
    """All that leaves the process: spans, both kinds of metrics, and logs as text and as JSON with their tracebacks."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        caplog.set_level(logging.DEBUG)
        self._traces = Traces()
        self._reader = InMemoryMetricReader()
        self._registry = CollectorRegistry()
        self.telemetry = [
            OpenTelemetry(
                tracer_provider=self._traces.provider, meter_provider=MeterProvider([self._reader]), census_seconds=0.05
            ),
            Prometheus(registry=self._registry, census_seconds=0.05),
        ]

    def text(self) -> str:
        """Return it as one text, and make sure that there is something in each part."""
        data = self._reader.get_metrics_data()
        assert data is not None
        parts = {
            "spans": "\n".join(span.to_json() for span in self._traces.spans),
            "read": data.to_json(),
            "scraped": generate_latest(self._registry).decode(),
        }
        assert all("Leaky" in part for part in parts.values())
        plain, structured = logging.Formatter("%(message)s %(saga_id)s", defaults={"saga_id": "-"}), JsonFormatter()
        records = [form.format(record) for record in self._caplog.records for form in (plain, structured)]
        return "\n".join([*parts.values(), *records])


def test_nothing_that_a_user_says_leaves_by_telemetry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One saga is undone, another can't be; in both, everything that could leak is a secret."""
    everything = Everything(caplog)

    async def main() -> None:
        async with Orchestrator(
            sqlite(tmp_path), sagas=[Leaky()], limits=limits(), telemetry=everything.telemetry
        ) as orchestrator:
            undone = await orchestrator.execute(Leaky, Order(id=SECRET, total=0), saga_id="undone")
            assert isinstance(undone, Compensated)
            assert SECRET in str(undone)
            stuck = await orchestrator.execute(Leaky, Order(id=SECRET, total=1), saga_id="stuck")
            assert isinstance(stuck, NeedsAttention)
            await orchestrator.retry(Leaky, "stuck", reason=SECRET, by=SECRET)
            await asyncio.sleep(0.2)

    run(main())
    text = everything.text()
    assert "ConnectionError" in text
    assert SECRET not in text


def test_an_error_from_foreign_code_is_logged_by_its_type(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store's driver may quote a row in its message; where it came from is said, what it said is not."""
    everything = Everything(caplog)

    class Quotes(FaultyStore):
        asked = 0

        async def commit(self, worker: Any, turns: Any) -> Any:
            self.asked += 1
            if self.asked == 2:
                raise RuntimeError(f"can't store {SECRET}")
            if self.asked == 3:
                raise StoreUnavailable("The line is cut.") from ValueError(f"sent {SECRET}")
            return await super().commit(worker, turns)

    async def main() -> None:
        async with Orchestrator(
            Quotes(sqlite(tmp_path)), sagas=[Leaky()], limits=limits(), telemetry=everything.telemetry
        ) as orchestrator:
            await orchestrator.execute(Leaky, Order(), saga_id="1")

    run(main())
    text = everything.text()
    assert "RuntimeError" in text
    assert "The line is cut." in text
    assert "test_secrets.py" in text
    assert SECRET not in text
