"""The order saga on Temporal: activities in a workflow, undone by hand in `except`.

Runs in the environment of `temporal`, in Temporal's sandbox for workflows. Must not be imported elsewhere.
Imported by `temporal_app`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from benchmarks.peers import shop


# user code: begin
@activity.defn
async def reserve_inventory(order_id: str, order: dict[str, Any]) -> dict[str, Any]:
    return shop.reserve(order_id, order)


@activity.defn
async def release_inventory(reservation: dict[str, Any]) -> None:
    shop.release(reservation)


@activity.defn
async def process_payment(order_id: str, order: dict[str, Any]) -> dict[str, Any]:
    return shop.pay(order_id, order)


@activity.defn
async def refund_payment(payment: dict[str, Any]) -> None:
    shop.refund(payment)


@activity.defn
async def create_shipment(
    order_id: str, reservation: dict[str, Any], payment: dict[str, Any], declined: bool
) -> dict[str, Any]:
    try:
        return shop.ship(order_id, reservation, payment, declined=declined)
    except shop.NoCarrier as error:
        raise ApplicationError(str(error), non_retryable=True) from error


TIMEOUT = timedelta(seconds=30)
ACTIVITIES = [reserve_inventory, release_inventory, process_payment, refund_payment, create_shipment]


@workflow.defn
class PlaceOrder:
    @workflow.run
    async def run(self, order_id: str, order: dict[str, Any], declined: bool) -> dict[str, Any]:
        undo = []
        try:
            reservation = await workflow.execute_activity(
                reserve_inventory, args=[order_id, order], start_to_close_timeout=TIMEOUT
            )
            undo.append((release_inventory, reservation))
            payment = await workflow.execute_activity(
                process_payment, args=[order_id, order], start_to_close_timeout=TIMEOUT
            )
            undo.append((refund_payment, payment))
            return await workflow.execute_activity(
                create_shipment, args=[order_id, reservation, payment, declined], start_to_close_timeout=TIMEOUT
            )
        except ActivityError as error:
            for compensate, result in reversed(undo):
                await workflow.execute_activity(compensate, args=[result], start_to_close_timeout=TIMEOUT)
            return {"undone": str(error)}


# user code: end
