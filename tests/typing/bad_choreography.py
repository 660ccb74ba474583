"""Wrong use of choreography: both checkers must flag each marked place, and nothing else.

The rules for places are those of `bad.py`. Read by type checkers, never run.
"""

from __future__ import annotations

from atone.choreography import Choreography, Participant, Reaction, event, reacts, times, within
from good_choreography import Cancelled, Declined, Failed, Inventory, Out, Overdue, Placed, Refunded, Released
from good_choreography import Reserved, Taken


class Listening(Participant, name="listening"):
    @reacts(Placed, emits=(Reserved,))
    async def another_event(self, ctx: Reaction[Taken]) -> Reserved:  # E
        raise NotImplementedError

    @reacts(Placed, Taken, emits=(Reserved,))
    async def one_event_too_few(self, ctx: Reaction[Placed]) -> Reserved:  # E
        raise NotImplementedError

    @reacts(Placed, emits=(Reserved,))
    def no_context(self) -> Reserved:  # E
        raise NotImplementedError

    @reacts(Placed, emits=(Reserved,))
    def one_parameter_too_many(self, ctx: Reaction[Placed], more: int) -> Reserved:  # E
        raise NotImplementedError

    @reacts(Reserved, emits=(Taken,))
    async def c1_reads_what_was_never_sent(self, ctx: Reaction[Reserved]) -> Taken:
        return Taken(str(ctx.event.amount))  # E

    @reacts("order.placed")  # E
    async def by_its_name(self, ctx: Reaction[Placed]) -> None: ...

    @reacts()  # E
    async def to_nothing(self, ctx: Reaction[Placed]) -> None: ...

    @reacts(Placed, order="any")  # E
    async def unknown_option(self, ctx: Reaction[Placed]) -> None: ...

    @reacts(Placed, timeout="5")  # E
    async def text_for_a_time(self, ctx: Reaction[Placed]) -> None: ...

    @reacts(Placed, after=Taken)  # E
    async def no_tuple(self, ctx: Reaction[Placed]) -> None: ...


class Publishing(Participant, name="publishing"):
    @reacts(Placed, emits=(Reserved,))
    async def another_event(self, ctx: Reaction[Placed]) -> Taken:  # E
        raise NotImplementedError

    @reacts(Placed, emits=(Reserved, Out))
    async def one_unsaid(self, ctx: Reaction[Placed]) -> Reserved | Out | Taken:  # E
        raise NotImplementedError

    @reacts(Placed)
    async def emits_nothing(self, ctx: Reaction[Placed]) -> Reserved:  # E
        raise NotImplementedError

    @reacts(Placed, emits=(Reserved,))
    def a_list_of_others(self, ctx: Reaction[Placed]) -> list[Taken]:  # E
        raise NotImplementedError

    @reacts(Placed, emits=(Reserved,))
    def no_event(self, ctx: Reaction[Placed]) -> int:  # E
        raise NotImplementedError


class Undoing(Participant, name="undoing"):
    @reacts(Placed, emits=(Reserved, Out))
    async def reserve(self, ctx: Reaction[Placed]) -> Reserved | Out:
        raise NotImplementedError

    @reserve.undo(Failed, emits=(Released,))
    async def takes_what_was_never_returned(self, ctx: Reaction[Failed], done: Taken) -> Released:  # E
        raise NotImplementedError

    @reserve.undo(Failed, emits=(Released,))
    async def c2_takes_it_from_the_failure(self, ctx: Reaction[Failed], done: Failed) -> Released:  # E
        raise NotImplementedError

    @reserve.undo(Failed, Overdue, emits=(Released,))
    async def one_event_too_few(self, ctx: Reaction[Failed], done: Reserved) -> Released:  # E
        raise NotImplementedError

    @reserve.undo(Failed, emits=(Released,))
    async def publishes_another(self, ctx: Reaction[Failed], done: Reserved) -> Refunded:  # E
        raise NotImplementedError

    @reserve.undo(Failed, emits=(Released,))
    def takes_nothing(self, ctx: Reaction[Failed]) -> Released:  # E
        raise NotImplementedError

    @reserve.undo(Failed)  # E
    async def is_silent(self, ctx: Reaction[Failed], done: Reserved) -> None: ...

    @reserve.undo(Failed, emits=(Released,), pivot=True)  # E
    async def is_a_pivot(self, ctx: Reaction[Failed], done: Reserved) -> Released:
        raise NotImplementedError

    @reserve.undo(Failed, emits=(Released,))
    async def c2_reads_a_field_of_the_failure(self, ctx: Reaction[Failed], done: Reserved) -> Released:
        return Released(ctx.event.reservation_id)  # E


class Expecting(Participant, name="expecting"):
    @reacts(Placed, emits=(Reserved,), expects=30)  # E
    async def no_events(self, ctx: Reaction[Placed]) -> Reserved:
        raise NotImplementedError

    @reacts(Placed, emits=(Reserved,), expects=within(30, Taken))  # E
    async def nothing_instead(self, ctx: Reaction[Placed]) -> Reserved:
        raise NotImplementedError

    @reacts(Placed, emits=(Reserved,), at_most=3)  # E
    async def only_a_number(self, ctx: Reaction[Placed]) -> Reserved:
        raise NotImplementedError

    @reacts(Declined, at_most=times(3))  # E
    async def and_then(self, ctx: Reaction[Declined]) -> None: ...


class NoName(Participant):  # E
    pass


@event(Placed)  # E
class NamedByAClass: ...


@event("order.stopped", version="1")  # E
class TextForANumber: ...


Choreography("orders", Inventory("shelf"), starts=(Placed,), completes=(Reserved,))  # E
Choreography("orders", Inventory, starts=Placed, completes=(Reserved,))  # E
Choreography("orders", Inventory, completes=(Cancelled,))  # E
