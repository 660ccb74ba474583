"""The order saga on Absurd: a task with steps, undone by hand in `except`, and a client that asks for its result.

Runs in the environment of `absurd`; worker and clients are this process. Must not be imported elsewhere.
Started by `benchmarks.compare`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

from absurd_sdk import AsyncAbsurd

from benchmarks.peers import shop
from benchmarks.peers.task import finish, judge, measured, saga_id, this_task

task = this_task()
app = AsyncAbsurd(task.places["dsn"])
# An idle worker looks this often; the default of 0.25 s would be all that is measured with one saga in flight.
POLL_SECONDS = 0.01


# user code: begin
@app.register_task(name="place-order")
async def place_order(params: dict[str, Any], ctx: Any) -> dict[str, Any]:
    order_id, order = params["order_id"], params["order"]
    undo = []

    async def reserve_inventory() -> dict[str, Any]:
        return shop.reserve(order_id, order)

    async def release_inventory() -> None:
        shop.release(reservation)

    async def process_payment() -> dict[str, Any]:
        return shop.pay(order_id, order)

    async def refund_payment() -> None:
        shop.refund(payment)

    async def create_shipment() -> dict[str, Any]:
        return shop.ship(order_id, reservation, payment, declined=params["declined"])

    try:
        reservation = await ctx.step("reserve", reserve_inventory)
        undo.append(("release", release_inventory))
        payment = await ctx.step("pay", process_payment)
        undo.append(("refund", refund_payment))
        return await ctx.step("ship", create_shipment)
    except shop.NoCarrier as error:
        for name, compensate in reversed(undo):
            await ctx.step(name, compensate)
        return {"undone": str(error)}


# user code: end


def make_tables() -> None:
    tool = Path(sys.executable).with_name("absurdctl")
    for words in (["init"], ["create-queue", "default"]):
        subprocess.run([tool, *words, "--database", task.places["dsn"]], check=True, stdout=subprocess.DEVNULL)


async def main() -> None:
    await asyncio.to_thread(make_tables)
    client_side = AsyncAbsurd(task.places["dsn"])
    worker = asyncio.ensure_future(app.start_worker(concurrency=task.inflight, poll_interval=POLL_SECONDS))

    async def run_one(client: int, number: int) -> None:
        params = {"order_id": saga_id(client, number), "order": shop.AN_ORDER, "declined": task.declined}
        spawned = await client_side.spawn("place-order", params, queue="default")
        found = await client_side.await_task_result(spawned["task_id"])
        judge(task, found.result)

    loaded = await measured(task, run_one)
    assert not worker.done(), "the worker ran to the end"
    finish(task, loaded, "absurd-sdk")


asyncio.run(main())
