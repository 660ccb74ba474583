"""A saga of commands for tests with several processes: two rooms, each booked by message and given back by message.

Owns the target that `atone worker` is given. Who answers is the test's to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from atone import Context, Saga, Tried, command


@dataclass(frozen=True)
class Trip:
    name: str


@dataclass(frozen=True)
class Room:
    night: int


class TwoNights(Saga[Trip]):
    """Two commands in a row; a reply that died with a worker is not awaited for long."""

    @command(reply=str, timeout=3, to="hotel.book")
    def first(self, ctx: Context[Trip]) -> Room:
        return Room(1)

    @first.compensation(to="hotel.cancel")
    def give_back_first(self, ctx: Context[Trip], tried: Tried[str]) -> Room:
        return Room(1)

    @command(first, reply=str, timeout=3, to="hotel.book")
    def second(self, ctx: Context[Trip], first: str) -> Room:
        return Room(2)

    @second.compensation(to="hotel.cancel")
    def give_back_second(self, ctx: Context[Trip], tried: Tried[str]) -> Room:
        return Room(2)


sagas = [TwoNights()]
