"""Arguments that can't be meant: refused at once, by name, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest

from atone import Completed, Orchestrator, Saga, wait_for_event
from atone._runtime.requests import ask
from atone.errors import DefinitionError, PayloadError, RequestRefused, StoreError
from atone.orchestrator import Limits
from atone.stores import open_store
from tests.runtime.world import Order, PlaceOrder, World, opened, run, sqlite

NAN, INF = float("nan"), float("inf")


class Paid(Saga[Order]):
    paid = wait_for_event("paid", str, timeout=60)


@pytest.mark.parametrize("limit", [0, -1, 1001, 2.5, True, "10", None], ids=repr)
def test_a_list_has_a_bounded_length(tmp_path: Path, limit: Any) -> None:
    """Neither none nor everything."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            with pytest.raises(PayloadError, match="limit="):
                await orchestrator.list(limit=limit)
            assert await orchestrator.list(limit=1000) == []

    run(main())


@pytest.mark.parametrize("keep", [-1, NAN, INF, "1", True], ids=repr)
def test_an_early_event_is_kept_for_a_time_that_ends(tmp_path: Path, keep: Any) -> None:
    """An event that nobody takes must become a dead letter at some time."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), Paid()) as orchestrator:
            with pytest.raises(RequestRefused, match="keep="):
                await orchestrator.send_event(Paid, "1", "paid", "x", keep=keep)

    run(main())


@pytest.mark.parametrize("event_id", ["", "x" * 301, "a\x00b", "\ud800", 7], ids=repr)
def test_an_event_id_is_a_usable_text(tmp_path: Path, event_id: Any) -> None:
    """An empty one is not "none given": many different events would be one."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), Paid()) as orchestrator:
            with pytest.raises(RequestRefused, match="event_id"):
                await orchestrator.send_event(Paid, "1", "paid", "x", event_id=event_id)
            await orchestrator.start(Paid, Order(), saga_id="1")
            await orchestrator.send_event(Paid, "1", "paid", "x", event_id="e" * 300)
            assert isinstance(await orchestrator.outcome(Paid, "1", timeout=20), Completed)

    run(main())


@pytest.mark.parametrize("what", ["step", "event", "request_id"])
def test_what_a_request_names_is_bounded(tmp_path: Path, what: str) -> None:
    """Whoever asks, by whatever way, can't fill the journal."""

    async def main() -> None:
        names: dict[str, Any] = {what: "x" * 301}
        async with sqlite(tmp_path) as store:
            with pytest.raises(RequestRefused, match="1 to 300 characters"):
                await ask(store, "default", "PlaceOrder", "1", "retry", by="me", reason="a test", **names)

    run(main())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sagas_in_flight_max", 0),
        ("sagas_in_flight_max", 1.5),
        ("threads_max", 0),
        ("threads_max", True),
        ("poll_seconds", 0),
        ("poll_seconds", NAN),
        ("lease_seconds", 0.0),
        ("lease_seconds", -1),
        ("lease_seconds", INF),
        ("loop_stall_seconds", 0),
        ("keep_seconds", -0.1),
        ("grace_seconds", NAN),
        ("cancel_grace_seconds", "1"),
    ],
)
def test_a_limit_is_a_bound(name: str, value: Any) -> None:
    """It is refused by its name when it is set, not by a worker that does nothing."""
    with pytest.raises(DefinitionError, match=rf"Limits\({name}=\)"):
        Limits(**{name: value})


def test_a_limit_may_be_zero_where_that_means_something() -> None:
    """No grace at all, and nothing kept in memory."""
    assert Limits(keep_seconds=0, grace_seconds=0.0, cancel_grace_seconds=0).grace_seconds == 0


@pytest.mark.parametrize("sagas", [None, 7, "sagas", [7], [None], PlaceOrder(World()), {PlaceOrder}], ids=type)
def test_what_is_no_list_of_sagas_is_refused(sagas: Any) -> None:
    """One that forgot the brackets is told so."""
    with pytest.raises(DefinitionError, match=r"give \[MySaga"):
        Orchestrator("memory://", sagas=sagas, allow_volatile=True)


@pytest.mark.parametrize("url", ["sqlite:///a\x00b.db", "sqlite:////tmp/\x00"], ids=repr)
def test_a_path_with_a_nul_names_no_file(url: str) -> None:
    """It is said when the store is made, and by an error of ours."""
    with pytest.raises(StoreError, match="NUL"):
        open_store(url)


def test_a_closed_connection_is_said_to_be_closed(tmp_path: Path) -> None:
    """Not with an error of the driver."""

    async def main() -> None:
        async with opened(sqlite(tmp_path), PlaceOrder(World())) as orchestrator:
            connection = apsw.Connection(str(tmp_path / "sagas.db"))
            connection.close()
            with pytest.raises(TypeError, match="closed"):
                await orchestrator.start(PlaceOrder, Order(), saga_id="1", connection=connection)

    run(main())
