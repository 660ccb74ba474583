"""Lifecycle events say what the state says: of every story, and without a word that somebody else has written."""

from __future__ import annotations

import pytest

from atone._core.events import NAMES, OF_SAGA, OF_STEP, LifecycleEvent, is_beginning, lifecycle_events
from atone._core.fold import fold
from atone._core.journal import AttentionRaised, SagaParked
from atone._core.plan import Plan
from atone._core.state import SagaState
from tests.core.stories import STORIES

Told = list[LifecycleEvent]


def told(plan: Plan, rows: list[tuple[object, ...]]) -> tuple[Told, SagaState]:
    """Return what the rows of a journal tell, and the saga after them."""
    saga: SagaState | None = None
    found: Told = []
    for row in rows:
        entries: tuple[object, ...] = row
        found += lifecycle_events(plan, saga, entries)
        saga = fold(plan, saga, entries)
    assert saga is not None
    return found, saga


def of_story(name: str) -> tuple[list[str], SagaState]:
    """Return the events of a story as short words."""
    story = STORIES[name]()
    found, saga = told(story.plan, story.rows)
    words = [" ".join(map(str, (one for one in event if one is not None))) for event in found]
    return words, saga


@pytest.mark.parametrize("name", STORIES)
def test_the_last_events_of_a_saga_say_how_it_stands(name: str) -> None:
    """One start; the last word about the saga, and about each step, is what its state says."""
    story = STORIES[name]()
    found, saga = told(story.plan, story.rows)
    names = [event.name for event in found]
    assert names.count("saga.started") == 1
    assert names[0] == "saga.started"
    assert {*names} <= {*NAMES}
    of_saga = [event.name for event in found if event.step is None or event.trigger is not None]
    if saga.status in OF_SAGA:
        assert of_saga[-1] == OF_SAGA[saga.status]
    for step, state in zip(story.plan.steps, saga.steps, strict=True):
        about = [event.name for event in found if event.step == step.name and event.trigger is None]
        if state.status in OF_STEP and state.waived is None:
            assert about[-1] == OF_STEP[state.status]


@pytest.mark.parametrize("name", STORIES)
def test_nothing_is_told_twice_of_one_attempt(name: str) -> None:
    """A retry that is scheduled, or a reset, is no second outcome."""
    story = STORIES[name]()
    found, _ = told(story.plan, story.rows)
    about = [event for event in found if event.attempt is not None]
    assert len({*about}) == len(about)


def test_a_straight_saga_tells_of_each_step_once() -> None:
    """And of its end in the row of its last step."""
    words, _ = of_story("completed")
    assert words[0] == "saga.started"
    assert [word.split()[0] for word in words[1:-1]] == ["step.succeeded"] * (len(words) - 2)
    assert words[-1] == "saga.completed"


def test_a_saga_that_turns_back_says_why_in_a_word_and_where_it_began() -> None:
    """The step that was refused, then each undo in its order, then the end."""
    words, saga = of_story("rejected")
    assert saga.cause is not None
    failed = next(at for at, word in enumerate(words) if word.startswith("step.failed"))
    assert words[failed + 1] == f"saga.compensating {saga.cause.step} failure"
    undone = [word for word in words[failed + 2 :] if word != "saga.compensated"]
    assert undone
    assert all(word.startswith("step.compensated ") for word in undone)
    assert words[-1] == "saga.compensated"


def test_an_undo_that_gives_up_is_told_and_the_saga_needs_somebody() -> None:
    """Not that it is compensated, until somebody has helped and it is."""
    words, _ = of_story("undo_fails_continue")
    failed = next(at for at, word in enumerate(words) if word.startswith("step.compensation_failed"))
    in_need, resumed = words.index("saga.needs_attention"), words.index("saga.resumed")
    assert failed < in_need < resumed < words.index("saga.compensated") == len(words) - 1


def test_who_goes_on_after_a_person_says_so() -> None:
    """`saga.resumed`, whatever the direction."""
    words, _ = of_story("operator_retries")
    assert words.index("saga.needs_attention") < words.index("saga.resumed")


@pytest.mark.parametrize("name", STORIES)
def test_no_event_repeats_what_somebody_wrote(name: str) -> None:
    """Only names out of the plan, numbers, and the law's own words."""
    story = STORIES[name]()
    found, _ = told(story.plan, story.rows)
    known = {step.name for step in story.plan.steps} | {None}
    triggers = {"failure", "cancel", "deadline", "timeout", "operator", None}
    assert {event.step for event in found} <= known
    assert {event.trigger for event in found} <= triggers
    assert {type(event.attempt) for event in found} <= {int, type(None)}


def test_a_row_without_entries_tells_nothing() -> None:
    """A worker that gives a saga up has nothing to tell of."""
    story = STORIES["completed"]()
    assert lifecycle_events(story.plan, story.saga, ()) == ()
    assert not is_beginning(())


def test_a_parked_saga_needs_somebody() -> None:
    """Also one that the law could not decide on."""
    story = STORIES["rejected"]()
    first = fold(story.plan, None, story.rows[0])
    parked = lifecycle_events(story.plan, first, (AttentionRaised(None, "secret"), SagaParked()))
    assert parked == (LifecycleEvent("saga.needs_attention"),)
