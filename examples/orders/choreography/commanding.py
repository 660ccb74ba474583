"""The same services, driven by an orchestrator: each step sends a command to one of the participants' handlers.

Owns the saga and the process that runs it. The services are those of the choreography, not one line is different: the
event that a handler reacts to is the command that calls it, and the event that it publishes is the answer. Run by
`run` as `python -m examples.orders.choreography.commanding`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from pathlib import Path

from atone import Context, Orchestrator, Retry, Saga, Tried, command, pivot, retriable
from atone.brokers import open_broker
from examples.orders.audit import saga_id_of
from examples.orders.children import when_stdin_closes
from examples.orders.choreography.events import (
    OrderConfirmed,
    OrderPlaced,
    ParcelRefused,
    ParcelSent,
    PaymentDeclined,
    PaymentTaken,
    StockReserved,
)
from examples.orders.choreography.unruly import Mischief, Unruly, print_for_ever
from examples.orders.domain import Order
from examples.orders.order_file import read_orders

_OFTEN = Retry(attempts=30, initial=0.1, factor=2, maximum=1)
# The broker repeats what a killed service had not settled; to send it again sooner would only make more of it. And a
# refusal by the pivot counts only as the answer to the first sending: after a second one, nobody knows what that did.
_PATIENCE_SECONDS = 120
_STOP_SECONDS = 15.0


class CommandOrder(Saga[Order], version=1):
    """One order, by commands; nothing is held while a service works."""

    @command(reply=StockReserved, to="inventory.reserve", retry=_OFTEN, timeout=_PATIENCE_SECONDS)
    def reserve_inventory(self, ctx: Context[Order]) -> OrderPlaced:
        return OrderPlaced(ctx.input)

    @reserve_inventory.compensation(to="inventory.release", retry=_OFTEN, timeout=_PATIENCE_SECONDS)
    def release_inventory(self, ctx: Context[Order], tried: Tried[StockReserved]) -> PaymentDeclined:
        return PaymentDeclined("the saga turned back")

    @command(reserve_inventory, reply=PaymentTaken, to="payments.charge", retry=_OFTEN, timeout=_PATIENCE_SECONDS)
    def process_payment(self, ctx: Context[Order], reserved: StockReserved) -> StockReserved:
        return reserved

    @process_payment.compensation(to="payments.refund", retry=_OFTEN, timeout=_PATIENCE_SECONDS)
    def refund_payment(self, ctx: Context[Order], tried: Tried[PaymentTaken]) -> ParcelRefused:
        return ParcelRefused("the saga turned back")

    @pivot.command(process_payment, reply=ParcelSent, to="shipping.send", retry=_OFTEN, timeout=_PATIENCE_SECONDS)
    def send_parcel(self, ctx: Context[Order], paid: PaymentTaken) -> PaymentTaken:
        return paid

    @retriable.command(send_parcel, reply=OrderConfirmed, to="shipping.confirm", timeout=_PATIENCE_SECONDS)
    def send_confirmation(self, ctx: Context[Order], sent: ParcelSent) -> ParcelSent:
        return sent


async def run(settings: argparse.Namespace) -> None:
    """Start a saga for every order of the file, and follow each to its end."""
    _stop_with_stdin()
    orders = read_orders(settings.orders).orders
    places = asyncio.Semaphore(settings.inflight)
    broker = Unruly(open_broker(settings.broker), Mischief(settings.twice, settings.late), settings.seed)
    async with (
        Orchestrator(settings.store, sagas=[CommandOrder()], broker=broker) as orchestrator,
        asyncio.TaskGroup() as group,
    ):

        async def follow(order: Order) -> None:
            async with places:
                saga = await orchestrator.start(CommandOrder, order, saga_id=saga_id_of(order.id))
                await saga.outcome()

        group.create_task(print_for_ever(broker))
        for order in orders:
            group.create_task(follow(order))


def _stop_with_stdin() -> None:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    when_stdin_closes(lambda: loop.call_soon_threadsafe(task.cancel), exit_after_seconds=_STOP_SECONDS)


def main() -> None:
    """Run until standard input closes."""
    parser = argparse.ArgumentParser(description="Orders by commands to the choreography's services.")
    parser.add_argument("--store", required=True, help="Atone's store, a URL")
    parser.add_argument("--broker", required=True, help="a URL")
    parser.add_argument("--orders", type=Path, required=True)
    parser.add_argument("--inflight", type=int, default=40, help="sagas under way at a time")
    parser.add_argument("--twice", type=float, default=0.0, help="share of messages that come twice")
    parser.add_argument("--late", type=float, default=0.0, help="share of messages that come late")
    parser.add_argument("--seed", type=int, default=1)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
