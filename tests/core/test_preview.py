"""What a rollback would do now, and that it does just that."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from atone._core import facts
from atone._core.commands import AskMessage, Decision
from atone._core.decide import decide
from atone._core.explain import Preview, Undo, explain, preview
from atone._core.facts import Landed
from atone._core.fold import fold
from atone._core.journal import AttemptStarted, DirectionDecided, RequestAnswered, RequestReceived
from atone._core.plan import Plan
from atone._core.state import Request, SagaState, SagaStatus
from tests.core.driver import COMPENSATION, PROBE, Story, delay, given, pivot, retriable, saga_of, step
from tests.core.explore import ALL_ASKS
from tests.core.plans import PLANS
from tests.core.world import Model

ORDER = saga_of(step("reserve"), step("pay"), pivot("ship"), retriable("confirm"))


def _seen(story: Story) -> Preview:
    return preview(story.plan, story.saga, story.now)


def test_a_preview_names_what_would_be_undone_in_order() -> None:
    """First what is under way, then the rest in reverse; last what needs nothing, and why."""
    story = given(saga_of(step("a"), step("m", no_compensation="a mail"), step("b"), step("c"))).succeeds("a", "m")
    seen = _seen(story)
    assert seen.is_possible
    assert [(one.step, one.what) for one in seen.steps] == [
        ("b", Undo.WAIT),
        ("a", Undo.UNDO),
        ("c", Undo.NOTHING),
        ("m", Undo.NOTHING),
    ]
    assert seen.order == ("b", "a")
    assert seen.stands == (("m", "it has no compensation: a mail"),)


def test_a_preview_says_what_is_in_doubt_and_how_long_its_undo_waits() -> None:
    """Late grace: the attempt's deadline and five seconds."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").breaks("b")
    (b, a) = _seen(story).steps
    assert (b.step, b.what, b.in_seconds) == ("b", Undo.UNDO_UNKNOWN, 15.0)
    assert (a.step, a.what, a.in_seconds) == ("a", Undo.UNDO, 15.0)


@pytest.mark.parametrize(
    ("story", "says"),
    [
        (lambda: given(ORDER).succeeds("reserve", "pay", "ship"), "the point of no return, ship, has passed"),
        (lambda: given(ORDER).succeeds("reserve", "pay"), "ship, is under way"),
        (lambda: given(ORDER).succeeds("reserve", "pay").breaks("ship"), "ship, may have landed"),
        (lambda: given(ORDER).asked("terminate"), "the saga is over: failed"),
    ],
)
def test_a_preview_says_why_there_is_no_way_back(story: Callable[[], Story], says: str) -> None:
    """And lists nothing."""
    seen = _seen(story())
    assert not seen.is_possible
    assert says in str(seen.why_not)
    assert seen.steps == ()


def test_a_preview_says_why_a_step_needs_nothing() -> None:
    """Each reason in its words."""
    plan = saga_of(step("w", has_when=True), delay("d", 0.0), step("r"), step("z"))
    story = given(plan)
    story.tells(facts.ConditionTold("w", runs=False)).rejects("r")
    assert story.status() is SagaStatus.COMPENSATED
    story = given(plan).tells(facts.ConditionTold("w", runs=False))
    why = {one.step: one.why for one in _seen(story).steps if one.what is Undo.NOTHING}
    assert why == {"w": "it was skipped", "d": "a wait has no effect", "z": "it has not begun"}


def test_a_preview_during_a_rollback_shows_what_is_left() -> None:
    """What is done, what is under way, what comes, and what is stuck."""
    story = given(saga_of(step("a"), step("b"), step("c"), step("d"), step("e"))).succeeds("a", "b", "c", "d")
    story.rejects("e").undoes("d").gives_up("c")
    shown = {one.step: (one.what, one.why) for one in _seen(story).steps}
    assert shown["d"] == (Undo.NOTHING, "it was undone")
    assert shown["e"] == (Undo.NOTHING, "it was rejected, surely without effect")
    assert shown["c"][0] is Undo.NEEDS_PERSON
    assert shown["b"] == (Undo.UNDO, "it is being undone now")
    assert _seen(story).order == ("b", "a")


def test_a_preview_of_a_halted_rollback_shows_what_waits_for_a_person() -> None:
    """Nothing more is undone by itself."""
    plan = saga_of(step("a"), step("b"), step("c"), on_compensation_failure="halt")
    story = given(plan).succeeds("a", "b").rejects("c").gives_up("b")
    assert {one.step: one.what for one in _seen(story).steps if one.step != "c"} == {
        "a": Undo.NEEDS_PERSON,
        "b": Undo.NEEDS_PERSON,
    }


def test_neither_page_changes_the_saga() -> None:
    """They rehearse on a copy."""
    story = given(ORDER).succeeds("reserve").breaks("pay")
    before = story.saga
    explain(story.plan, story.saga, story.now)
    _seen(story)
    assert story.saga == before


# What the preview says is what happens


def _roll_back(plan: Plan, saga: SagaState, now: float, pick: Callable[[int], int]) -> list[tuple[str, float]]:
    """Cancel for real; let calls end well in the order that `pick` chooses; return each undo and when it began."""
    begun: list[tuple[str, float]] = []
    asked = fold(plan, saga, (RequestReceived(Request("real", "cancel", "ann", "because")),))
    decision: Decision = decide(plan, asked, facts.Woke(), now)
    clock = now
    for _ in range(200):
        starts = [entry for entry in decision.entries if type(entry) is AttemptStarted]
        begun += [(entry.step, clock - now) for entry in starts if entry.operation is COMPENSATION]
        if decision.saga.status.is_final:
            return begun
        pairs = zip(plan.steps, decision.saga.steps, strict=True)
        opened = [(step.name, state.open) for step, state in pairs if state.open is not None]
        fact: facts.Fact = facts.Woke()
        wanted = [one for one in decision.commands if type(one) is AskMessage]
        if wanted:
            built = tuple(facts.Built(one.step, one.operation, b"{}") for one in wanted)
            fact = facts.MessagesBuilt(wanted[0].version, built)
        elif opened:
            name, found = opened[pick(len(opened))]
            fact = facts.Succeeded(name, found.operation, found.attempt, b"null")
            if found.operation is PROBE:
                fact = facts.Probed(name, found.attempt, Landed.CANNOT_TELL)
        else:
            assert decision.wake_at is not None
            clock = max(clock, decision.wake_at)
        decision = decide(plan, decision.saga, fact, clock)
    raise AssertionError(f"the rollback does not end: {decision.saga}")


def _agrees(plan: Plan, saga: SagaState, now: float, chance: random.Random) -> None:
    seen = preview(plan, saga, now)
    if not seen.is_possible:
        asked = fold(plan, saga, (RequestReceived(Request("real", "cancel", "ann", "because")),))
        entries = decide(plan, asked, facts.Woke(), now).entries
        assert not any(type(entry) is DirectionDecided for entry in entries)
        return
    planned = {one.step: one for one in seen.steps}
    begun = _roll_back(plan, saga, now, lambda _: 0)
    assert [name for name, _ in begun] == [name for name in seen.order if plan.steps[plan.index[name]].has_compensation]
    assert dict(begun) == {name: planned[name].in_seconds for name, _ in begun}
    at_random = [name for name, _ in _roll_back(plan, saga, now, chance.randrange)]
    assert sorted(at_random) == sorted(name for name, _ in begun)
    for first, name in enumerate(at_random):
        below = plan.descendants[plan.index[name]]
        assert not any(plan.index[later] in below for later in at_random[first + 1 :])


def _answers_hold(plan: Plan, saga: SagaState, now: float) -> None:
    """Each command that is offered is applied when it is given."""
    for option in explain(plan, saga, now).may:
        request = Request("real", option.command, "ann", "because", option.step, None, b"null", option.landed)
        asked = fold(plan, saga, (RequestReceived(request),))
        entries = decide(plan, asked, facts.Woke(), now).entries
        answers = [entry.answer for entry in entries if type(entry) is RequestAnswered and entry.id == "real"]
        assert answers in (["applied"], [] if option.command == "cancel" else ["applied"]), option


@pytest.mark.parametrize("name", PLANS)
def test_what_a_preview_says_is_what_a_cancel_does(name: str) -> None:
    """In every forward state of some random walks: the same undos, in the same order, at the same times."""
    plan = PLANS[name]
    for seed in range(3):
        chance = random.Random(f"preview {name} {seed}")
        model = Model(plan, budget=4, asks=tuple(kind for kind in ALL_ASKS if kind != "terminate"))
        world = model.start().world
        for _ in range(16):
            choices = model.choices(world)
            if world.saga.status.is_final or not choices:
                break
            # A reply that nobody has looked at yet is no success, which is what a preview takes a running attempt for.
            is_answered = any(request.kind == "reply" for request in world.saga.requests)
            if not world.saga.is_backward and not is_answered:
                _agrees(plan, world.saga, world.now, chance)
            _answers_hold(plan, world.saga, world.now)
            world = model.take(world, chance.choice(choices)).world
