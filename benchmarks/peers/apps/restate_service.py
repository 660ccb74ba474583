"""The order saga on Restate: a handler whose steps the server journals, undone by hand in `except`.

Runs in the environment of `restate`, served by Hypercorn in processes of its own; `restate_app` is its client. Must not
be imported elsewhere. Started by `benchmarks.peers.servers`.
"""

from __future__ import annotations

import logging
from typing import Any

import restate
from restate.exceptions import TerminalError

from benchmarks.peers import shop

logging.disable(logging.CRITICAL)  # nobody reads it


# user code: begin
async def reserve_inventory(order_id: str, order: dict[str, Any]) -> dict[str, Any]:
    return shop.reserve(order_id, order)


async def release_inventory(done: dict[str, Any]) -> None:
    shop.release(done)


async def process_payment(order_id: str, order: dict[str, Any]) -> dict[str, Any]:
    return shop.pay(order_id, order)


async def refund_payment(done: dict[str, Any]) -> None:
    shop.refund(done)


async def create_shipment(
    order_id: str, reservation: dict[str, Any], payment: dict[str, Any], declined: bool
) -> dict[str, Any]:
    try:
        return shop.ship(order_id, reservation, payment, declined=declined)
    except shop.NoCarrier as error:
        raise TerminalError(str(error)) from error


orders = restate.Service("Orders")


@orders.handler()
async def place(ctx: restate.Context, request: dict[str, Any]) -> dict[str, Any]:
    order_id, order = request["order_id"], request["order"]
    undo = []
    try:
        reservation = await ctx.run_typed("reserve", reserve_inventory, order_id=order_id, order=order)
        undo.append(("release", release_inventory, reservation))
        payment = await ctx.run_typed("pay", process_payment, order_id=order_id, order=order)
        undo.append(("refund", refund_payment, payment))
        return await ctx.run_typed(
            "ship",
            create_shipment,
            order_id=order_id,
            reservation=reservation,
            payment=payment,
            declined=request["declined"],
        )
    except TerminalError as error:
        for name, compensate, result in reversed(undo):
            await ctx.run_typed(name, compensate, done=result)
        return {"undone": str(error)}


app = restate.app(services=[orders])
# user code: end
