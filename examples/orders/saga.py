"""The order saga: reserve, charge, ship, confirm; and how each is undone.

Owns the order of the steps and their policies. Talks to the participants through the clients it is given.
The participants refuse an action that comes after its compensation, so the steps say `barrier=True`: Atone need not
wait for delayed calls before it compensates. Run by `run_orders`.
"""

from __future__ import annotations

from atone import CannotTell, Context, Landed, NotLanded, Retry, Saga, Tried, pivot, retriable, step
from atone.integrations.httpx import call_headers
from examples.orders.clients import Inventory, Payments, Shipping
from examples.orders.domain import Order, Payment, Reservation, Shipment

# Short, because the demo's participants answer again within seconds; a shop would wait longer.
_A_FEW = Retry(attempts=3, initial=0.1, factor=2, maximum=1)
_MANY = Retry(attempts=30, initial=0.1, factor=2, maximum=1)


class PlaceOrder(Saga[Order], version=1):
    """One order from the shelf to the customer's door, or not at all."""

    def __init__(self, inventory: Inventory, payments: Payments, shipping: Shipping) -> None:
        self.inventory, self.payments, self.shipping = inventory, payments, shipping

    @step(retry=_A_FEW, timeout=3, barrier=True)
    async def reserve_inventory(self, ctx: Context[Order]) -> Reservation:
        return await self.inventory.reserve(ctx.input.id, ctx.input.lines, call_headers(ctx))

    @reserve_inventory.compensation(retry=_MANY, timeout=3)
    async def release_inventory(self, ctx: Context[Order], tried: Tried[Reservation]) -> None:
        await self.inventory.release(tried.idempotency_key, call_headers(ctx, tried))

    # Asked beside inventory, not after it: the customer waits for the slower of the two only.
    @step(retry=_A_FEW, timeout=3, barrier=True, after=())
    async def process_payment(self, ctx: Context[Order]) -> Payment:
        order = ctx.input
        return await self.payments.charge(order.id, order.card, order.total_cents, call_headers(ctx))

    @process_payment.compensation(retry=_MANY, timeout=3)
    async def refund_payment(self, ctx: Context[Order], tried: Tried[Payment]) -> None:
        await self.payments.refund(tried.idempotency_key, call_headers(ctx, tried))

    @process_payment.probe
    async def find_payment(
        self, ctx: Context[Order], tried: Tried[Payment]
    ) -> Landed[Payment] | NotLanded | CannotTell:
        payment = await self.payments.find(tried.idempotency_key)
        return NotLanded() if payment is None else Landed(payment)

    @pivot(reserve_inventory, process_payment, retry=_MANY, timeout=3)
    async def create_shipment(self, ctx: Context[Order], reservation: Reservation, payment: Payment) -> Shipment:
        return await self.shipping.create(ctx.input.id, reservation, payment, call_headers(ctx))

    @retriable(create_shipment, retry=_MANY, timeout=3)
    async def send_confirmation(self, ctx: Context[Order], shipment: Shipment) -> None:
        await self.shipping.confirm(ctx.input.id, shipment, ctx.input.customer, call_headers(ctx))
