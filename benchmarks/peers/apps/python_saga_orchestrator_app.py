"""The order saga on python-saga-orchestrator: a class for each step, tables for its state and history.

Runs in the environment of `python-saga-orchestrator`; a saga runs in the client that starts it, which is this process.
Must not be imported elsewhere. Started by `benchmarks.compare`.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from loguru import logger
from pydantic import BaseModel
from saga_orchestrator import (
    BaseStep,
    InputContext,
    NoRetry,
    SagaBuilder,
    SagaOrchestrator,
    SagaStateMixin,
    SagaStepHistoryMixin,
)
from sqlalchemy import ForeignKey, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from benchmarks.peers import shop
from benchmarks.peers.task import finish, measured, saga_id, this_task


# user code: begin
class Base(DeclarativeBase):
    pass


class OrderHistory(Base, SagaStepHistoryMixin):
    __tablename__ = "order_saga_history"
    saga_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("order_saga_state.id", ondelete="CASCADE"), index=True)


class OrderState(Base, SagaStateMixin):
    __tablename__ = "order_saga_state"
    step_history: Mapped[list[OrderHistory]] = relationship(
        "OrderHistory", cascade="all, delete-orphan", order_by="OrderHistory.id"
    )


class Request(BaseModel):
    order_id: str
    order: dict[str, Any]
    declined: bool


class Reservation(BaseModel):
    id: str
    item: str
    quantity: int


class Payment(BaseModel):
    id: str
    cents: int


class ToShip(BaseModel):
    order_id: str
    reservation: Reservation
    payment: Payment
    declined: bool


class Shipment(BaseModel):
    id: str
    reservation: str
    payment: str


class ReserveInventory(BaseStep[Request, Reservation]):
    async def execute(self, inp: Request, event_type: Any = None, event_payload: Any = None) -> Reservation:
        return Reservation(**shop.reserve(inp.order_id, inp.order))

    async def compensate(
        self, inp: Request, out: Reservation, event_type: Any = None, event_payload: Any = None
    ) -> None:
        shop.release(out.model_dump())


class ProcessPayment(BaseStep[Request, Payment]):
    async def execute(self, inp: Request, event_type: Any = None, event_payload: Any = None) -> Payment:
        return Payment(**shop.pay(inp.order_id, inp.order))

    async def compensate(self, inp: Request, out: Payment, event_type: Any = None, event_payload: Any = None) -> None:
        shop.refund(out.model_dump())


class CreateShipment(BaseStep[ToShip, Shipment]):
    async def execute(self, inp: ToShip, event_type: Any = None, event_payload: Any = None) -> Shipment:
        reservation, payment = inp.reservation.model_dump(), inp.payment.model_dump()
        return Shipment(**shop.ship(inp.order_id, reservation, payment, declined=inp.declined))


def request(ctx: InputContext) -> Request:
    return Request(**ctx.initial_data)


def to_ship(ctx: InputContext) -> ToShip:
    done = ctx.step_outputs
    return ToShip(**ctx.initial_data, reservation=done["reserve"], payment=done["pay"])


def order_saga() -> Any:
    builder = SagaBuilder()
    builder.add_step(step_id="reserve", step=ReserveInventory(), input_map=request, retry_policy=NoRetry())
    builder.add_step(step_id="pay", step=ProcessPayment(), input_map=request, retry_policy=NoRetry())
    builder.add_step(step_id="ship", step=CreateShipment(), input_map=to_ship, retry_policy=NoRetry())
    return builder.build()


# user code: end

ENDS = {"order": "COMPLETED", "compensate": "COMPENSATED"}
POOL = 20


async def main() -> None:
    logger.remove()
    task = this_task()
    dsn = task.places["dsn"].replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(dsn, pool_size=POOL, max_overflow=0, pool_timeout=300)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    orchestrator = SagaOrchestrator[OrderState, OrderHistory](
        model_class=OrderState,
        history_model_class=OrderHistory,
        session_maker=async_sessionmaker(engine, expire_on_commit=False),
    )
    orchestrator.register("order_v1", order_saga())

    async def run_one(client: int, number: int) -> None:
        order_id = saga_id(client, number)
        initial = {"order_id": order_id, "order": shop.AN_ORDER, "declined": task.declined}
        await orchestrator.start(saga_name="order_v1", initial_data=initial, aggregation_id=order_id)

    loaded = await measured(task, run_one)
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT status::text, count(*) FROM order_saga_state GROUP BY status"))
        statuses = {str(status).upper(): number for status, number in found}
    if statuses != {ENDS[task.workload]: loaded.sagas}:
        raise SystemExit(f"Sagas ended as {statuses}.")
    finish(task, loaded, "python-saga-orchestrator", "sqlalchemy", "asyncpg")


asyncio.run(main())
