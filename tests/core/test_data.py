"""Rules 10, 11 and 13 of the law, and the fold: plans, keys, back-off, bounds and journals as data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from atone._core.facts import Operation
from atone._core.fold import Unfoldable, fold
from atone._core.journal import AttemptStarted, SagaStarted
from atone._core.keys import idempotency_key
from atone._core.plan import Plan
from atone._core.retry import Retry, delay_seconds
from atone._core.state import Open, SagaState, SagaStatus, StepState, StepStatus, Tries
from tests.core.driver import ACTION, COMPENSATION, PROBE, delay, event, fan, given, pivot, retriable, saga_of, step
from tests.core.plans import PLANS

PLAN = saga_of(step("a"), pivot("p"), retriable("r"))


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_survives_its_own_json(name: str) -> None:
    """It is stored in the database and read again by a later release."""
    plan = PLANS[name]
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(plan.to_json()).plan_hash == plan.plan_hash


def test_a_plan_of_a_newer_release_is_read_without_what_is_not_known() -> None:
    """Unknown keys are ignored, in the plan, in a step and in a policy."""
    newer = PLAN.to_json().replace('"attempts"', '"colour": "red", "attempts"')
    newer = newer.replace('"at_most_once"', '"shape": 1, "at_most_once"').replace(
        '"name": "Test"', '"x": 1, "name": "Test"'
    )
    assert newer != PLAN.to_json()
    assert Plan.from_json(newer) == PLAN


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"steps": [1]}', '{"steps": [{"role": "king"}]}'])
def test_what_is_not_a_plan_is_refused(text: str) -> None:
    """As one kind of error, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r".+"):
        Plan.from_json(text)


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAN, name="Other"),
        replace(PLAN, version=2),
        replace(PLAN, input_type="Order"),
        saga_of(step("a"), pivot("q"), retriable("r")),
        saga_of(step("a"), pivot("p")),
        saga_of(step("a"), step("p"), step("r")),
        fan(step("a"), join=pivot("p")),
        saga_of(step("a", has_probe=True), pivot("p"), retriable("r")),
        saga_of(step("a", result_type="int"), pivot("p"), retriable("r")),
        saga_of(pivot("p"), step("a"), retriable("r")),
    ],
    ids=["name", "version", "input", "step", "lost step", "kind", "edges", "probe", "type", "order"],
)
def test_the_plan_hash_covers_what_strands_a_saga(other: Plan) -> None:
    """Names, kinds, edges, order and types."""
    assert other.plan_hash != PLAN.plan_hash


@pytest.mark.parametrize(
    "options",
    [
        {"retry": Retry(attempts=9)},
        {"compensation_retry": Retry(attempts=9)},
        {"timeout_seconds": 1.0, "compensation_timeout_seconds": 1.0, "probe_timeout_seconds": 1.0},
        {"deadline_seconds": 99.0},
    ],
)
def test_the_plan_hash_leaves_out_what_may_change_under_a_saga(options: dict[str, object]) -> None:
    """Retries, time-outs and limits."""
    assert saga_of(step("a", **options), pivot("p"), retriable("r")).plan_hash == PLAN.plan_hash
    assert replace(PLAN, deadline_seconds=1.0, recoveries_max=1, late_grace_seconds=0.0).plan_hash == PLAN.plan_hash


def test_the_start_names_version_and_hash() -> None:
    """A saga belongs to them."""
    (started,) = given(PLAN).all(SagaStarted)
    assert (started.name, started.version, started.plan_hash) == ("Test", 1, PLAN.plan_hash)


def test_action_and_compensation_have_different_keys() -> None:
    """One key for both would have the participant answer an undo with the action's reply."""
    keys = {idempotency_key("main", "Test", "s-1", "a", operation) for operation in Operation}
    assert len(keys) == len(Operation)


def test_the_parts_of_a_key_never_run_together() -> None:
    """`a:b` + `c` is not `a` + `b:c`, whatever characters the parts hold."""
    seen: set[str] = set()
    for parts in (
        ("a.b", "c"),
        ("a", "b.c"),
        ("a:b", "c"),
        ("a", "b:c"),
        ("1-a", ""),
        ("", "1-a"),
        ("a", "b"),
        ("a", ""),
    ):
        seen.add(idempotency_key("main", *parts, "step", "action"))
        seen.add(idempotency_key(*parts, "s", "step", "action"))
    assert len(seen) == 16


def test_back_off_is_the_same_in_every_engine_and_spreads_over_sagas() -> None:
    """Jitter comes from the key and the attempt alone."""
    retry = Retry(initial=8.0, factor=1.0, maximum=8.0, jitter=0.5)
    waits = {delay_seconds(retry, 1, f"key {saga}") for saga in range(50)}
    assert waits == {delay_seconds(retry, 1, f"key {saga}") for saga in range(50)}
    assert len(waits) == 50
    assert all(4.0 <= wait <= 8.0 for wait in waits)


def test_back_off_grows_and_is_capped_however_often_it_failed() -> None:
    """The ten-thousandth failure overflows nothing."""
    retry = Retry(initial=1.0, factor=2.0, maximum=30.0, jitter=0.0)
    assert [delay_seconds(retry, failures, "k") for failures in (1, 2, 3, 10, 10_000)] == [1.0, 2.0, 4.0, 30.0, 30.0]


def test_two_operations_of_one_step_wait_differently() -> None:
    """Each has its own key, so its own jitter."""
    jittery = Retry(attempts=9, initial=100.0, factor=1.0, maximum=100.0, jitter=1.0)
    plan = saga_of(step("a", retry=jittery, compensation_retry=jittery), step("b"))
    forward = given(plan).breaks("a").last.wake_at
    backward = given(plan).succeeds("a").rejects("b").breaks("a").last.wake_at
    assert forward != backward


@pytest.mark.parametrize(
    "policy", [{"attempts": 0}, {"initial": -1.0}, {"factor": 0.5}, {"jitter": 2.0}, {"maximum": -1.0}]
)
def test_a_policy_that_makes_no_sense_is_refused(policy: dict[str, float]) -> None:
    """When it is written, not when it is used."""
    with pytest.raises(ValueError, match="Retry"):
        Retry(**policy)


def test_attempts_are_bounded_for_every_operation() -> None:
    """(rule 13) Actions, compensations and probes each by their own policy."""
    story = given(saga_of(step("a", has_probe=True), step("b"))).breaks("a")
    for _ in range(100):
        if story.saga.status is SagaStatus.NEEDS_ATTENTION:
            break
        story = story.breaks("a") if story.at("a").open is not None else story.wakes()
    counts = {
        operation: sum(one.operation is operation for one in story.all(AttemptStarted)) for operation in Operation
    }
    # Three calls; two probes after each; then two undos.
    assert counts == {ACTION: 3, PROBE: 6, COMPENSATION: 2}


def test_the_journal_gives_the_saga_back() -> None:
    """Folded row by row from the first, it is what was in memory, its version included."""
    story = given(saga_of(step("a", has_when=True), delay("d", 1.0), event("paid"), pivot("p")))
    assert story.refolded() == story.saga
    assert story.saga.version == len(story.rows)


def test_a_copy_that_is_written_out_changes_what_it_says_and_nothing_else() -> None:
    """Each is `_replace` by position, so a field that moves must not take another's place."""
    step = StepState(*(object() for _ in StepState._fields))
    opened, tries = Open(ACTION, 1, 2.0), Tries(1, 2, 3)
    nothing: dict[str, Any] = {"due": None, "due_at": None}
    acting = step._replace(status=StepStatus.RUNNING, open=opened, action=tries, began_at=9.0, **nothing)
    assert step.acting(opened, tries, 9.0) == acting
    known = step._replace(status=StepStatus.SUCCEEDED, open=None, result=b"1", attention=None, **nothing)
    assert step.known(b"1") == known
    undoing = step._replace(status=StepStatus.COMPENSATING, open=opened, compensation=tries, **nothing)
    assert step.undoing(opened, tries) == undoing
    resting = step._replace(status=StepStatus.COMPENSATED, open=None, **nothing)
    assert step.resting(StepStatus.COMPENSATED) == resting
    assert step.scheduled(PROBE, 8.0) == step._replace(due=PROBE, due_at=8.0)
    saga = SagaState(*(object() for _ in SagaState._fields))
    moved = saga._replace(status=SagaStatus.RUNNING, steps=(step,), version=7, rollback=("a",))
    assert saga.moved(SagaStatus.RUNNING, (step,), 7, ("a",)) == moved
    assert {type(one) for one in (step.acting(opened, tries, 9.0), step.known(b"1"))} == {StepState}


def test_a_row_without_entries_still_counts() -> None:
    """A worker that gives a saga up writes one."""
    story = given(PLAN)
    assert fold(PLAN, story.saga, ()).version == story.saga.version + 1


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (AttemptStarted("a", ACTION, 1, 1.0, 0.0),),
        (SagaStarted("m", "T", 1, "h", "s", b"1"), SagaStarted("m", "T", 1, "h", "s", b"1")),
        (SagaStarted("m", "T", 1, "h", "s", b"1"), AttemptStarted("nobody", ACTION, 1, 1.0, 0.0)),
    ],
    ids=["no entry", "no start", "two starts", "unknown step"],
)
def test_a_journal_that_was_damaged_is_not_folded(entries: tuple[AttemptStarted | SagaStarted, ...]) -> None:
    """It says what is wrong instead of guessing."""
    with pytest.raises(Unfoldable):
        fold(PLAN, None, entries)
