"""The order saga on DBOS, asynchronous: durable steps in a workflow, undone by hand in `except`.

Runs in the environment of `dbos`; worker and clients are this process. Must not be imported elsewhere.
Started by `benchmarks.compare`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from dbos import DBOS, SetWorkflowID

from benchmarks.peers import shop
from benchmarks.peers.task import finish, judge, measured, saga_id, this_task


# user code: begin
@DBOS.step()
async def reserve_inventory(order_id: str, order: dict[str, Any]) -> dict[str, Any]:
    return shop.reserve(order_id, order)


@DBOS.step()
async def release_inventory(reservation: dict[str, Any]) -> None:
    shop.release(reservation)


@DBOS.step()
async def process_payment(order_id: str, order: dict[str, Any]) -> dict[str, Any]:
    return shop.pay(order_id, order)


@DBOS.step()
async def refund_payment(payment: dict[str, Any]) -> None:
    shop.refund(payment)


@DBOS.step()
async def create_shipment(
    order_id: str, reservation: dict[str, Any], payment: dict[str, Any], declined: bool
) -> dict[str, Any]:
    return shop.ship(order_id, reservation, payment, declined=declined)


@DBOS.workflow()
async def place_order(order_id: str, order: dict[str, Any], declined: bool) -> dict[str, Any]:
    undo = []
    try:
        reservation = await reserve_inventory(order_id, order)
        undo.append((release_inventory, reservation))
        payment = await process_payment(order_id, order)
        undo.append((refund_payment, payment))
        return await create_shipment(order_id, reservation, payment, declined)
    except shop.NoCarrier as error:
        for compensate, result in reversed(undo):
            await compensate(result)
        return {"undone": str(error)}


# user code: end


async def main() -> None:
    task = this_task()
    DBOS(
        config={
            "name": "bench",
            "system_database_url": task.places["dsn"],
            "application_version": "1",
            "executor_id": "bench",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()

    async def run_one(client: int, number: int) -> None:
        order_id = saga_id(client, number)
        with SetWorkflowID(order_id):
            judge(task, await place_order(order_id, shop.AN_ORDER, task.declined))

    finish(task, await measured(task, run_one), "dbos")


asyncio.run(main())
