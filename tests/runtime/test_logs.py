"""Structured logs: each record says which saga, step, attempt and worker it is about, and JSON is one line."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from atone import Completed, Context, Reject, Retry, Saga, step
from atone.integrations.logs import EventLog, JsonFormatter
from atone.orchestrator import Orchestrator
from tests.runtime.world import Order, PlaceOrder, World, hangs, lands, limits, raises, run, sqlite

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _lines(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    form = JsonFormatter()
    return [json.loads(form.format(record)) for record in caplog.records if record.name == name]


def test_every_event_is_a_line_with_its_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A repeat, a rejection, two undos and the end: in order, with names that a machine can filter by."""
    world = World()
    caplog.set_level(logging.INFO, "atone.events")

    async def main() -> None:
        async with Orchestrator(
            sqlite(tmp_path), sagas=[PlaceOrder(world)], limits=limits(), telemetry=EventLog()
        ) as orchestrator:
            world.script("charge", raises(ConnectionError("reset")), lands)
            world.script("ship", raises(Reject("no carrier")))
            await orchestrator.execute(PlaceOrder, Order(), saga_id="1", trace={"traceparent": PARENT})

    run(main())
    lines = _lines(caplog, "atone.events")
    attempts = [(line["step"], line["operation"], line["attempt"], line["outcome"]) for line in lines if "step" in line]
    assert attempts == [
        ("reserve", "action", 1, "succeeded"),
        ("charge", "action", 1, "unknown"),
        ("charge", "action", 2, "succeeded"),
        ("ship", "action", 1, "rejected"),
        ("charge", "compensation", 1, "succeeded"),
        ("reserve", "compensation", 1, "succeeded"),
    ]
    assert {(line["saga"], line["saga_id"], line["saga_version"], line["trace_id"]) for line in lines} == {
        ("PlaceOrder", "1", 1, PARENT[3:35])
    }
    assert [line["status"] for line in lines if "status" in line] == ["compensated"]
    unknown = next(line for line in lines if line.get("outcome") == "unknown")
    assert (unknown["level"], unknown["error_type"]) == ("warning", "ConnectionError")


def test_a_record_about_a_broken_saga_says_which_and_where(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The saga is parked for a person; what the machine needs to find it stands in fields, the worker too."""
    import apsw

    world = World()

    async def main() -> None:
        world.script("charge", hangs)
        async with Orchestrator(sqlite(tmp_path), sagas=[PlaceOrder(world)], limits=limits()) as orchestrator:
            await orchestrator.start(PlaceOrder, Order(), saga_id="broken")
            await world.reached("charge")
        connection = apsw.Connection(str(tmp_path / "sagas.db"))
        connection.execute("UPDATE journal SET entries = CAST('[' AS BLOB) WHERE version = 1")
        connection.close()
        async with Orchestrator(sqlite(tmp_path), sagas=[PlaceOrder(world)], limits=limits()) as orchestrator:
            await orchestrator.outcome(PlaceOrder, "broken", timeout=20)

    run(main())
    (line,) = (line for line in _lines(caplog, "atone.worker") if "saga_id" in line)
    assert (line["saga"], line["saga_id"], line["error_type"]) == (
        "PlaceOrder",
        "broken",
        "atone.errors.CorruptJournal",
    )
    assert line["worker"]


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    """A record of another library is written too: its exception by its type, what can't be JSON as text."""
    form = JsonFormatter()
    record = logging.LogRecord("other", logging.ERROR, "x.py", 1, "two\nlines of %s", (Path("here"),), None)
    record.saga_id = Path("an id")
    try:
        raise ValueError("a secret")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    text = form.format(record)
    assert "\n" not in text
    assert "secret" not in text
    line = json.loads(text)
    assert (line["message"], line["saga_id"], line["error_type"]) == ("two\nlines of here", "an id", "ValueError")


def test_nothing_is_logged_of_a_saga_that_goes_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who did not ask for events gets none, at any level."""
    caplog.set_level(logging.DEBUG, "atone")

    async def main() -> None:
        async with Orchestrator(sqlite(tmp_path), sagas=[PlaceOrder(World())], limits=limits()) as orchestrator:
            assert isinstance(await orchestrator.execute(PlaceOrder, Order(), saga_id="1"), Completed)

    run(main())
    assert [record for record in caplog.records if record.name.startswith("atone")] == []


class CallLater(Saga[Order]):
    """A step that is tried again in an hour, and is to be told of when it has failed once."""

    @step(no_compensation="a test", retry=Retry(attempts=5, initial=3600.0, maximum=3600.0, alert_after=1))
    async def call(self, ctx: Context[Order]) -> None:
        raise ConnectionError


def test_a_step_that_keeps_failing_is_told_of_though_nobody_holds_its_saga_till_the_next_try(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A wait that is long enough is handed back in the very turn that tells of it."""

    async def main() -> None:
        async with Orchestrator(sqlite(tmp_path), sagas=[CallLater()], limits=limits()) as orchestrator:
            await orchestrator.start(CallLater, Order(), saga_id="1")
            async with asyncio.timeout(20):
                while not _lines(caplog, "atone.saga"):  # noqa: ASYNC110 - a log tells nobody
                    await asyncio.sleep(0.01)

    run(main())
    assert [(line["step"], line["message"]) for line in _lines(caplog, "atone.saga")] == [
        ("call", "saga 1: step call has failed 1 times")
    ]
