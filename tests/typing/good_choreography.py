"""Right use of choreography: both checkers must pass every line in their strictest mode.

Read by type checkers, and imported once to see that what they call right builds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

from atone.choreography import Choreography, Participant, Reaction, event, reacts, times, within
from atone.definition import Retry


@event("order.placed")
@dataclass(frozen=True)
class Placed:
    amount: int


@event("stock.reserved")
@dataclass(frozen=True)
class Reserved:
    reservation: str


@event("stock.out", failure=True)
@dataclass(frozen=True)
class Out:
    item: str


@event("stock.released")
@dataclass(frozen=True)
class Released:
    reservation: str


@event("payment.taken", version=2)
@dataclass(frozen=True)
class Taken:
    payment: str


@event("payment.declined")
@dataclass(frozen=True)
class Declined:
    attempt: int


@event("payment.failed", failure=True)
@dataclass(frozen=True)
class Failed:
    reason: str = ""


@event("payment.overdue", failure=True)
@dataclass(frozen=True)
class Overdue:
    reservation: str


@event("payment.refunded")
@dataclass(frozen=True)
class Refunded:
    payment: str


@event("points.booked")
@dataclass(frozen=True)
class Booked:
    points: int


@event("order.cancelled")
@dataclass(frozen=True)
class Cancelled: ...


@event("goods.handed-over")
@dataclass(frozen=True)
class Handed: ...


class Inventory(Participant, name="inventory"):
    def __init__(self, shelf: str) -> None:
        self.shelf = shelf

    @reacts(
        Placed, emits=(Reserved, Out), expects=within(timedelta(minutes=1), Taken, Failed, otherwise=Overdue), timeout=5
    )
    async def reserve(self, ctx: Reaction[Placed]) -> Reserved | Out:
        assert_type(ctx.event.amount, int)
        return Reserved(self.shelf) if ctx.event.amount else Out("all")

    @reserve.undo(Failed, Overdue, emits=(Released,), retry=Retry(attempts=50), timeout=timedelta(seconds=3))
    async def release(self, ctx: Reaction[Failed | Overdue], done: Reserved) -> Released:
        return Released(done.reservation)

    @reacts(Taken, emits=(Handed,), no_undo="a word")
    def hand_over(self, ctx: Reaction[Taken]) -> Handed:
        return Handed()

    @reserve.overdue
    def too_slow(self, done: Reserved) -> Overdue:
        return Overdue(done.reservation)


class Payments(Participant, name="payments"):
    @reacts(Reserved, Declined, emits=(Taken, Declined), at_most=times(3, otherwise=Failed), retry=Retry(attempts=2))
    def charge(self, ctx: Reaction[Reserved | Declined]) -> Taken | Declined:
        return Taken("p") if isinstance(ctx.event, Reserved) else Declined(ctx.event.attempt + 1)

    @charge.undo(Failed, Overdue, emits=(Refunded,))
    def refund(self, ctx: Reaction[Failed | Overdue], done: Taken | Declined) -> Refunded:
        return Refunded(done.payment if isinstance(done, Taken) else "none")


class Loyalty(Participant, name="loyalty"):
    @reacts(Handed, emits=(Booked,), after=(Reserved,), out_of_order="reject", pivot=True)
    async def book(self, ctx: Reaction[Handed]) -> list[Booked]:
        return [Booked(1), Booked(2)]

    @reacts(Placed, no_undo="only counts")
    async def count(self, ctx: Reaction[Placed]) -> None: ...

    @reacts(Out, Failed, Overdue, emits=(Cancelled,))
    async def cancel(self, ctx: Reaction[object]) -> tuple[Cancelled]:
        return (Cancelled(),)


loyal = Choreography(
    "orders",
    Inventory,
    Payments,
    Loyalty,
    starts=(Placed,),
    completes=(Booked,),
    compensates=(Cancelled,),
    version=3,
    deadline=timedelta(hours=1),
)


async def called_directly(inventory: Inventory) -> None:
    """A reaction is a method like any other in a unit test."""
    said = await inventory.reserve(Reaction(Placed(1), "s-1", "e-1"))
    if isinstance(said, Reserved):
        released = await inventory.release(Reaction(Failed("no"), "s-1", "e-2"), said)
        assert_type(released, Released)
