"""The order saga's steps, called by hand against real services: what each answer on the wire means to a saga."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from atone import Context, Landed, NotLanded, Reject, Tried, Unknown
from examples.orders.clients import Inventory, NoDefiniteAnswer, Payments, Shipping
from examples.orders.domain import Line, Order, Payment, Reservation
from examples.orders.faults import NO_FAULTS, Rates
from examples.orders.saga import PlaceOrder
from tests.e2e.order_service import Service, run, service

ORDER = Order("1", "Ada", "4000000000001234", (Line("CUP", 2, 500),), 1_000)
DECLINED = Order("1", "Ada", "4000000000000002", (Line("CUP", 2, 500),), 1_000)
BULKY = Order("1", "Ada", "4000000000001234", (Line("CUP", 21, 500),), 10_500)


def call(order: Order, key: str = "the action's key") -> Context[Order]:
    """Return what a step is handed."""
    return Context(saga_id="order-1", input=order, idempotency_key=key)


def with_saga(
    name: str, folder: Path, work: Callable[[PlaceOrder, Service], Awaitable[None]], rates: Rates = NO_FAULTS
) -> None:
    """Run the work with a saga whose clients all talk to this one service, and give up after half a second."""

    async def main() -> None:
        async with service(name, folder, rates) as running, httpx.AsyncClient(timeout=0.5) as http:
            url = str(running.http.base_url).rstrip("/")
            await work(PlaceOrder(Inventory(http, url), Payments(http, url), Shipping(http, url)), running)

    run(main)


def test_a_declined_card_is_a_rejection(tmp_path: Path) -> None:
    """Nothing was charged, for sure: the saga may turn back at once."""

    async def work(saga: PlaceOrder, running: Service) -> None:
        with pytest.raises(Reject, match="card declined"):
            await saga.process_payment(call(DECLINED))

    with_saga("payments", tmp_path, work)


def test_an_empty_shelf_is_a_rejection(tmp_path: Path) -> None:
    """Nothing was set aside, for sure."""

    async def work(saga: PlaceOrder, running: Service) -> None:
        with pytest.raises(Reject, match="out of stock: CUP"):
            await saga.reserve_inventory(call(BULKY))

    with_saga("inventory", tmp_path, work)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("unavailable", NoDefiniteAnswer),
        ("lost", httpx.RemoteProtocolError),
        ("slow", httpx.ReadTimeout),
        ("late", httpx.ReadTimeout),
    ],
)
def test_any_other_trouble_is_no_rejection(tmp_path: Path, fault: str, error: type[Exception]) -> None:
    """A 503, a cut connection, a time-out: the client does not claim to know what happened."""

    async def work(saga: PlaceOrder, running: Service) -> None:
        with pytest.raises(error):
            await saga.process_payment(call(DECLINED))

    rates = Rates.parse(f"unavailable=0,late=0,slow=0,lost=0,slow_seconds=1,{fault}=1")
    with_saga("payments", tmp_path, work, rates)


def test_a_late_action_that_is_refused_is_no_rejection(tmp_path: Path) -> None:
    """The 409 says that it was compensated, not that it never happened."""

    async def work(saga: PlaceOrder, running: Service) -> None:
        tried: Tried[Payment] = Tried("the action's key", Unknown())
        await saga.refund_payment(call(ORDER, key="the refund's key"), tried)
        with pytest.raises(NoDefiniteAnswer, match="409"):
            await saga.process_payment(call(ORDER))
        assert running.rows("SELECT kind FROM ledger") == []

    with_saga("payments", tmp_path, work)


def test_the_probe_finds_what_landed(tmp_path: Path) -> None:
    """Before the charge it has not landed, after it the probe brings its result, after the refund it has not."""

    async def work(saga: PlaceOrder, running: Service) -> None:
        tried: Tried[Payment] = Tried("the action's key", Unknown())
        assert await saga.find_payment(call(ORDER), tried) == NotLanded()
        payment = await saga.process_payment(call(ORDER))
        assert await saga.find_payment(call(ORDER), tried) == Landed(payment)
        await saga.refund_payment(call(ORDER, key="the refund's key"), tried)
        assert await saga.find_payment(call(ORDER), tried) == NotLanded()

    with_saga("payments", tmp_path, work)


def test_a_release_names_the_reservation_by_its_key_and_brings_its_own(tmp_path: Path) -> None:
    """With one key for both, the release would be answered as a repeat of the reservation."""

    async def work(saga: PlaceOrder, running: Service) -> None:
        reservation = await saga.reserve_inventory(call(ORDER))
        tried: Tried[Reservation] = Tried("the action's key", Unknown())
        await saga.release_inventory(call(ORDER, key="the release's key"), tried)
        assert reservation == Reservation("reservation-1")
        assert running.rows("SELECT kind, quantity FROM movements ORDER BY id") == [("reserve", 2), ("release", 2)]
        assert running.rows("SELECT key, saga_id FROM replies ORDER BY key") == [
            ("the action's key", "order-1"),
            ("the release's key", "order-1"),
        ]

    with_saga("inventory", tmp_path, work)
