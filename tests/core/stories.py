"""The stories behind the golden histories: the shapes of the law, each told from start to end.

Owns what happens in each; what must follow was recorded by `record.py` and read by a person before it was kept.
Called by `record.py`, and by the test that says that every story has its history.
"""

from __future__ import annotations

from collections.abc import Callable

from atone._core import facts
from atone._core.facts import Landed
from tests.core.driver import (
    COMPENSATION,
    ONCE,
    Story,
    command,
    delay,
    event,
    fan,
    given,
    pivot,
    retriable,
    saga_of,
    step,
)

ORDER = saga_of(step("reserve"), step("pay"), pivot("ship"), retriable("confirm"))
PROBED = saga_of(step("reserve"), pivot("ship", has_probe=True), retriable("confirm"))


def completed() -> Story:
    """Four steps, five rows."""
    return given(ORDER).succeeds("reserve", "pay", "ship", "confirm")


def rejected() -> Story:
    """The second step is refused; the first one is undone."""
    return given(ORDER).succeeds("reserve").rejects("pay").undoes("reserve")


def gave_up_in_doubt() -> Story:
    """All attempts come to nothing: undone after the last one's deadline and the grace."""
    return given(ORDER).succeeds("reserve").gives_up("pay").wakes().undoes("pay").undoes("reserve")


def unknown_pivot_probed() -> Story:
    """A time-out at the point of no return: the participant says that it landed."""
    return (
        given(PROBED).succeeds("reserve").times_out("ship").probed("ship", Landed.LANDED, b'"S1"').succeeds("confirm")
    )


def unknown_pivot_not_landed() -> Story:
    """The probe says "not landed": the pivot is repeated, not turned back; exhausted, it waits for a person."""
    story = given(PROBED).succeeds("reserve")
    for _ in range(2):
        story.breaks("ship").probed("ship", Landed.NOT_LANDED).wakes()
    return (
        story.breaks("ship")
        .probed("ship", Landed.NOT_LANDED)
        .asked("resolve", step="ship", landed=False)
        .undoes("reserve")
    )


def late_sibling_joins() -> Story:
    """One branch is rejected while the other runs; what the other did is undone."""
    plan = fan(step("seat"), step("hotel"), first=step("reserve"))
    return given(plan).succeeds("reserve").rejects("seat").succeeds("hotel").undoes("hotel").undoes("reserve")


def undo_fails_continue() -> Story:
    """An undo gives up; the others run, then a person retries it."""
    story = given(saga_of(step("a"), step("b"), step("c"))).succeeds("a", "b").rejects("c").gives_up("b").undoes("a")
    return story.asked("retry", step="b").undoes("b")


def undo_fails_halt() -> Story:
    """An undo gives up and stops the others until a person skips it."""
    plan = saga_of(step("a"), step("b"), step("c"), on_compensation_failure="halt")
    return given(plan).succeeds("a", "b").rejects("c").gives_up("b").asked("skip", step="b").undoes("a")


def cancel_during_pivot_rejected() -> Story:
    """Cancelled while the point of no return was under way: it is refused, so the saga turns back."""
    return given(ORDER).succeeds("reserve", "pay").asked("cancel").rejects("ship").undoes("pay").undoes("reserve")


def cancel_during_pivot_landed() -> Story:
    """Cancelled while the point of no return was under way: it landed, so the cancel is too late."""
    return given(ORDER).succeeds("reserve", "pay").asked("cancel").succeeds("ship", "confirm")


def cancel_before_next_step() -> Story:
    """The cancel's row came first: the outcome that would start the pivot turns the saga back."""
    story = given(ORDER).succeeds("reserve").asked("cancel", wake=False)
    return story.succeeds("pay").undoes("pay").undoes("reserve")


def deadline() -> Story:
    """The saga's deadline passes during a delay."""
    plan = saga_of(step("reserve"), delay("cool", 60.0), pivot("ship"), deadline_seconds=30.0)
    return given(plan).succeeds("reserve").wakes().undoes("reserve")


def lost_too_often() -> Story:
    """Its processes keep dying: a person is needed, and cancels."""
    story = given(saga_of(step("reserve"), step("pay"), recoveries_max=1)).succeeds("reserve").loses("pay").loses("pay")
    return story.asked("cancel").wakes().undoes("pay").undoes("reserve")


def operator_resolves() -> Story:
    """An at-most-once step in doubt: a person has looked, and it landed."""
    story = given(saga_of(step("reserve"), step("pay", at_most_once=True), pivot("ship"))).succeeds("reserve")
    return story.times_out("pay").asked("resolve", step="pay", landed=True, payload=b'"P1"').succeeds("ship")


def operator_skips() -> Story:
    """An undo that can't be done: it is skipped with a reason, so the saga ends as failed."""
    return given(ORDER).succeeds("reserve").rejects("pay").rejects("reserve").asked("skip", step="reserve")


def operator_retries() -> Story:
    """The pivot's attempts are used up: another round, and it lands."""
    return (
        given(ORDER).succeeds("reserve", "pay").gives_up("ship").asked("retry", step="ship").succeeds("ship", "confirm")
    )


def event_early() -> Story:
    """The event is there before the step that waits for it."""
    story = given(saga_of(step("reserve"), event("paid"), step("pack")))
    return story.asked("event", event="paid", payload=b'{"sum":12}').succeeds("reserve", "pack")


def event_late() -> Story:
    """The event comes after its time-out, before a person did."""
    plan = saga_of(step("reserve"), event("paid", 60.0, on_timeout="attention"), step("pack"))
    story = given(plan).succeeds("reserve").wakes()
    story.now += 5.0
    return story.asked("event", event="paid", payload=b'{"sum":12}').succeeds("pack")


def event_timeout() -> Story:
    """The event does not come: the saga turns back."""
    return (
        given(saga_of(step("reserve"), event("paid", 60.0), step("pack"))).succeeds("reserve").wakes().undoes("reserve")
    )


def delayed() -> Story:
    """A wait by the clock between two steps."""
    return (
        given(saga_of(step("reserve"), delay("cool", 3600.0), step("pack")))
        .succeeds("reserve")
        .wakes()
        .succeeds("pack")
    )


def skipped_by_when() -> Story:
    """A condition does not hold; another one does."""
    plan = saga_of(step("gift", has_when=True), step("pay", has_when=True))
    told = given(plan).tells(facts.ConditionTold("gift", runs=False)).tells(facts.ConditionTold("pay", runs=True))
    return told.succeeds("pay")


def terminated() -> Story:
    """Stopped without undo by a person."""
    return given(ORDER).succeeds("reserve").asked("terminate")


def crash_in_rollback() -> Story:
    """The process dies in the middle of an undo; another one repeats it with the same key."""
    story = given(ORDER).succeeds("reserve").rejects("pay").loses("reserve")
    return story.undoes("reserve")


def shutdown_and_on() -> Story:
    """A worker drains in the middle of a step; the next one goes on."""
    story = given(ORDER).succeeds("reserve")
    story.may_start = False
    story.interrupts("pay")
    story.may_start = True
    return story.wakes().succeeds("pay", "ship", "confirm")


def rejection_in_doubt() -> Story:
    """An attempt in doubt, then a rejection: the step is undone all the same."""
    return given(ORDER).succeeds("reserve").breaks("pay").wakes().rejects("pay").wakes().undoes("pay").undoes("reserve")


def probed_at_the_cancel() -> Story:
    """Found by search: the probe was under way when the cancel came, and its step was left off the list."""
    story = given(saga_of(step("reserve", has_probe=True), step("pay"))).breaks("reserve").asked("cancel")
    return story.probed("reserve", Landed.NOT_LANDED).wakes().undoes("reserve")


def landed_after_denial() -> Story:
    """Found by search: a person said "did not land", the call said otherwise a moment later."""
    story = given(saga_of(step("reserve"), step("pay", at_most_once=True))).succeeds("reserve").times_out("pay")
    story.asked("resolve", step="pay", landed=False).arrives_late("pay").undoes("reserve")
    return story.undoes("pay")


def landed_during_undo() -> Story:
    """Found by search: the action is seen to land while it is being undone; a person has it undone once more."""
    story = given(saga_of(step("pay"))).breaks("pay").asked("cancel").wakes().arrives_late("pay")
    assert story.open("pay").operation is COMPENSATION
    return story.undoes("pay").asked("retry", step="pay").undoes("pay")


TRIP = saga_of(command("book"), step("charge"), pivot("confirm"))


def command_completed() -> Story:
    """A step by message: asked for, sent with its intent, answered."""
    return given(TRIP).sent_and_done("book").succeeds("charge", "confirm")


def command_undone() -> Story:
    """What comes after it is refused: another message undoes it."""
    return given(TRIP).sent_and_done("book").rejects("charge").sent_and_undone("book")


def command_rejected() -> Story:
    """The participant refuses; what was done before is undone."""
    return (
        given(saga_of(step("reserve"), command("book")))
        .succeeds("reserve")
        .builds()
        .replied("book", landed=False)
        .undoes("reserve")
    )


def command_unanswered() -> Story:
    """Nobody replies, it is sent again, and the answer to the first message ends the second."""
    return given(TRIP).builds().wakes().wakes().builds().replied("book", 1).succeeds("charge", "confirm")


def command_answered_too_late() -> Story:
    """Given up and being undone when the reply comes; behind the barrier nobody is needed."""
    story = given(saga_of(command("book", retry=ONCE), step("charge"))).builds().wakes().builds().replied("book", 1)
    return story.replied("book", operation=COMPENSATION)


def command_over_a_crash() -> Story:
    """The worker is gone while the reply is awaited, and the reply comes before anybody has looked."""
    return given(TRIP).builds().replied("book", wake=False).loses("book").succeeds("charge", "confirm")


def command_not_built() -> Story:
    """The code that builds a message raises: nothing was sent, and a person has it built again."""
    return given(TRIP).fails_to_build().asked("retry", step="book").sent_and_done("book").succeeds("charge", "confirm")


STORIES: dict[str, Callable[[], Story]] = {
    told.__name__: told
    for told in (
        completed,
        rejected,
        gave_up_in_doubt,
        unknown_pivot_probed,
        unknown_pivot_not_landed,
        late_sibling_joins,
        undo_fails_continue,
        undo_fails_halt,
        cancel_during_pivot_rejected,
        cancel_during_pivot_landed,
        cancel_before_next_step,
        deadline,
        lost_too_often,
        operator_resolves,
        operator_skips,
        operator_retries,
        event_early,
        event_late,
        event_timeout,
        delayed,
        skipped_by_when,
        terminated,
        crash_in_rollback,
        shutdown_and_on,
        rejection_in_doubt,
        probed_at_the_cancel,
        landed_after_denial,
        landed_during_undo,
        command_completed,
        command_undone,
        command_rejected,
        command_unanswered,
        command_answered_too_late,
        command_over_a_crash,
        command_not_built,
    )
}
