"""Shapes without an orchestrator: participants that react to each other's events, each with a database of its own.

Owns four choreographies, the rows that their participants write, and which effects each may leave. An effect is a row
in the transaction of its reaction; what it moves, and when it came among all of them, stands in it. Must not know how a
run is tormented. Used by every-point crashes and by real kills.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from atone import Retry
from atone.broker import Broker
from atone.choreography import Choreography, Participant, Reaction, event, reacts, within
from atone.serving import Service, ServiceTables, serve, start_blocking
from atone.testing.invariants import Rule, Violation, check_invariants
from tests.shapes.ledger import EFFECT, Line, effects_in
from tests.shapes.services import CENTS, CUSTOMER
from tests.shapes.shape import Stage

OFTEN = Retry(attempts=60, initial=0.02, factor=1.5, maximum=0.1)
SOON_SECONDS = 0.3
_TABLE = (
    "CREATE TABLE IF NOT EXISTS moved (at INTEGER, saga TEXT, step TEXT, operation TEXT, account TEXT, cents INTEGER)"
)
_MOVE = "INSERT INTO moved VALUES (tick(), ?, ?, ?, ?, ?)"
_MOVED = "SELECT at, saga, step, operation, account, cents FROM moved"


def _did(ctx: Reaction[Any], step: str, cents: int = 0) -> None:
    ctx.connection.execute(_MOVE, (ctx.saga_id, step, "action", step, cents))


def _undid(ctx: Reaction[Any], step: str, cents: int = 0) -> None:
    ctx.connection.execute(_MOVE, (ctx.saga_id, step, "compensation", step, -cents))


@event("order.placed")
@dataclass(frozen=True)
class Placed:
    fails_at: str = ""


@event("stock.reserved")
@dataclass(frozen=True)
class Reserved:
    fails_at: str = ""


@event("stock.released")
@dataclass(frozen=True)
class Released:
    why: str


@event("money.charged")
@dataclass(frozen=True)
class Charged:
    fails_at: str = ""


@event("money.refunded")
@dataclass(frozen=True)
class Refunded:
    why: str


@event("van.missing", failure=True)
@dataclass(frozen=True)
class VanMissing:
    why: str


@event("order.shipped")
@dataclass(frozen=True)
class Shipped:
    label: str


@event("order.cancelled")
@dataclass(frozen=True)
class Cancelled:
    why: str


class Stock(Participant, name="stock"):
    """Holds the goods."""

    @reacts(Placed, emits=(Reserved,), retry=OFTEN)
    def reserve(self, ctx: Reaction[Placed]) -> Reserved:
        _did(ctx, "reserve", CENTS)
        return Reserved(ctx.event.fails_at)

    @reserve.undo(Refunded, emits=(Released,), retry=OFTEN)
    def release(self, ctx: Reaction[Refunded], done: Reserved) -> Released:
        _undid(ctx, "reserve", CENTS)
        return Released(ctx.event.why)


class Money(Participant, name="money"):
    """Takes the money."""

    @reacts(Reserved, emits=(Charged,), retry=OFTEN)
    def charge(self, ctx: Reaction[Reserved]) -> Charged:
        _did(ctx, "charge", CENTS)
        return Charged(ctx.event.fails_at)

    @charge.undo(VanMissing, emits=(Refunded,), retry=OFTEN)
    def refund(self, ctx: Reaction[VanMissing], done: Charged) -> Refunded:
        _undid(ctx, "charge", CENTS)
        return Refunded(ctx.event.why)


class Vans(Participant, name="vans"):
    """Ships, which can't be undone."""

    @reacts(Charged, emits=(Shipped, VanMissing), pivot=True, retry=OFTEN, writes=False)
    def ship(self, ctx: Reaction[Charged]) -> Shipped | VanMissing:
        if ctx.event.fails_at == "vans":
            return VanMissing("no van")
        _did(ctx, "ship", CENTS)
        return Shipped("label")


class Desk(Participant, name="desk"):
    """Has the last word to the customer."""

    @reacts(Shipped, no_undo="the last word", retry=OFTEN)
    def tell(self, ctx: Reaction[Shipped]) -> None:
        _did(ctx, "tell")

    @reacts(Released, emits=(Cancelled,), no_undo="the way back", retry=OFTEN)
    def cancel(self, ctx: Reaction[Released]) -> Cancelled:
        _did(ctx, "cancel")
        return Cancelled(ctx.event.why)


CHAIN = Choreography(
    "chain", Stock, Money, Vans, Desk, starts=(Placed,), completes=(Shipped,), compensates=(Cancelled,)
)


@event("trip.asked")
@dataclass(frozen=True)
class TripAsked:
    by: str


@event("flight.booked")
@dataclass(frozen=True)
class FlightBooked:
    seat: int


@event("hotel.booked")
@dataclass(frozen=True)
class HotelBooked:
    room: int


@event("trip.ready")
@dataclass(frozen=True)
class TripReady:
    by: str


class Flights(Participant, name="flights"):
    """One branch."""

    @reacts(TripAsked, emits=(FlightBooked,), no_undo="nothing fails in this one", retry=OFTEN)
    def book(self, ctx: Reaction[TripAsked]) -> FlightBooked:
        _did(ctx, "flight", CENTS)
        return FlightBooked(1)


class Hotels(Participant, name="hotels"):
    """The other one."""

    @reacts(TripAsked, emits=(HotelBooked,), no_undo="nothing fails in this one", retry=OFTEN)
    def book(self, ctx: Reaction[TripAsked]) -> HotelBooked:
        _did(ctx, "hotel", CENTS)
        return HotelBooked(1)


class Trips(Participant, name="trips"):
    """Joins them: it waits for both."""

    @reacts(HotelBooked, emits=(TripReady,), after=(FlightBooked,), no_undo="the last word", retry=OFTEN)
    def join(self, ctx: Reaction[HotelBooked]) -> TripReady:
        _did(ctx, "join")
        return TripReady("ada")

    @reacts(FlightBooked, no_undo="it only notes", retry=OFTEN)
    def note(self, ctx: Reaction[FlightBooked]) -> None:
        _did(ctx, "note")


TRIP = Choreography("trip", Flights, Hotels, Trips, starts=(TripAsked,), completes=(TripReady,))


@event("table.asked")
@dataclass(frozen=True)
class Asked:
    guests: int


@event("table.held")
@dataclass(frozen=True)
class Held:
    table: int


@event("table.confirmed")
@dataclass(frozen=True)
class Confirmed:
    by: str


@event("table.seated")
@dataclass(frozen=True)
class Seated:
    table: int


@event("table.lapsed", failure=True)
@dataclass(frozen=True)
class Lapsed:
    table: int


@event("table.given-back")
@dataclass(frozen=True)
class GivenBack:
    table: int


class Tables(Participant, name="tables"):
    """Holds a table for a guest who has to confirm."""

    @reacts(Asked, emits=(Held,), expects=within(SOON_SECONDS, Confirmed, otherwise=Lapsed), retry=OFTEN)
    def hold(self, ctx: Reaction[Asked]) -> Held:
        _did(ctx, "hold", CENTS)
        return Held(7)

    @hold.overdue
    def lapse(self, done: Held) -> Lapsed:
        return Lapsed(done.table)

    @hold.undo(Lapsed, emits=(GivenBack,), retry=OFTEN)
    def give_back(self, ctx: Reaction[Lapsed], done: Held) -> GivenBack:
        _undid(ctx, "hold", CENTS)
        return GivenBack(done.table)

    @reacts(Confirmed, emits=(Seated,), writes=False, retry=OFTEN)
    def seat(self, ctx: Reaction[Confirmed]) -> Seated:
        return Seated(7)


class Guests(Participant, name="guests"):
    """Would confirm, and is never served."""

    @reacts(Held, emits=(Confirmed,), no_undo="a word", retry=OFTEN)
    def confirm(self, ctx: Reaction[Held]) -> Confirmed:
        _did(ctx, "confirm")
        return Confirmed("ada")


DINNER = Choreography("dinner", Tables, Guests, starts=(Asked,), completes=(Seated,), compensates=(GivenBack,))


@dataclass(frozen=True)
class Dance:
    """One choreographed shape: who takes part in processes of their own, the first event, and what it leaves.

    `starter` begins it, in a transaction of its own database. `leaves` names effects as "step action" or "step
    compensation", once each. `silent` participants are served by nobody.
    """

    name: str
    about: str
    choreography: Choreography
    first: Any
    starter: str
    leaves: frozenset[str]
    is_undone: bool = False
    silent: tuple[str, ...] = ()

    @property
    def roles(self) -> Sequence[str]:
        """The participants that have a process each."""
        return [name for name in self.choreography.participants if name not in self.silent]

    def service(self, role: str, stage: Stage, broker: Broker) -> Service:
        """Return one participant's process."""
        participant: Any = self.choreography.participants[role]
        return serve(self.choreography, participant(), database=with_table(stage, role), broker=broker,
                     poll_seconds=0.1)  # fmt: skip

    def begin(self, stage: Stage, saga_id: str = "s") -> None:
        """Start the saga: by the starter, in its own transaction; again is harmless."""
        with with_table(stage, self.starter)() as connection:
            ServiceTables().create_blocking(connection)
            start_blocking(self.choreography, connection, self.first, saga_id=saga_id)

    def lines(self, stage: Stage) -> list[Line]:
        """Return all effects in the order in which they came."""
        return moved_in(stage, self.roles)

    def is_over(self, stage: Stage, saga_id: str = "s") -> bool:
        """Whether everything that it is to leave is there."""
        return self.leaves <= {f"{one.step} {one.operation}" for one in self.lines(stage) if one.saga_id == saga_id}

    def violations(self, stage: Stage, saga_id: str = "s") -> list[Violation]:
        """Return everything that is wrong with a run that is over."""
        lines = self.lines(stage)
        found = check_invariants([], effects_in(lines))
        left = {f"{one.step} {one.operation}" for one in lines if one.saga_id == saga_id}
        if left != self.leaves:
            what = f"it left {', '.join(sorted(left)) or 'nothing'}, and not {', '.join(sorted(self.leaves))}."
            found.append(Violation(Rule.ENDS, self.choreography.name, saga_id, what))
        balances: dict[str, int] = {}
        for line in lines:
            for account, cents in line.moves.items():
                balances[account] = balances.get(account, 0) + cents
        if self.is_undone and any(balances.values()):
            found.append(Violation(Rule.MONEY, self.choreography.name, saga_id, f"undone, and left {balances}."))
        return found


def moved_in(stage: Stage, databases: Sequence[str]) -> list[Line]:
    """Return the effects that stand in these databases, in the order in which they came."""
    rows: list[tuple[Any, ...]] = []
    for name in databases:
        with with_table(stage, name)() as connection:
            rows += connection.execute(_MOVED).fetchall()
    return [
        Line(EFFECT, saga, step, operation, moves={CUSTOMER: -cents, account: cents} if cents else {})
        for _, saga, step, operation, account, cents in sorted(rows)
    ]


def with_table(stage: Stage, role: str) -> Callable[[], AbstractContextManager[sqlite3.Connection]]:
    """Return what begins a transaction in a database that has the table of effects."""
    begin = stage.databases(role)

    @contextmanager
    def beginning() -> Iterator[sqlite3.Connection]:
        with begin() as connection:
            connection.execute(_TABLE)
            yield connection

    return beginning


DANCES: Mapping[str, Dance] = {
    one.name: one
    for one in (
        Dance("dance_linear", "three participants in a row, and one who is told", CHAIN, Placed(), "stock",
              frozenset({"reserve action", "charge action", "ship action", "tell action"})),
        Dance("dance_refused", "the third fails, and two undo their work", CHAIN, Placed("vans"), "stock",
              frozenset({"reserve action", "charge action", "charge compensation", "reserve compensation",
                         "cancel action"}), is_undone=True),
        Dance("dance_fan_out", "two at the same time, and one who waits for both", TRIP, TripAsked("ada"), "trips",
              frozenset({"flight action", "hotel action", "join action", "note action"})),
        Dance("dance_time_out", "somebody never answers, and the work is undone", DINNER, Asked(2), "tables",
              frozenset({"hold action", "hold compensation"}), is_undone=True, silent=("guests",)),
    )
}  # fmt: skip
