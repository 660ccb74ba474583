"""Rule 4 of the law: compensation runs in reverse order, has its own policy, and never lies."""

from __future__ import annotations

import pytest

from atone._core import facts
from atone._core.journal import AttemptUnknown, CompensationGaveUp
from atone._core.state import SagaStatus, StepStatus
from tests.core.driver import COMPENSATION, OOPS, Story, fan, given, saga_of, step


def test_undos_run_in_reverse_order_one_after_the_other() -> None:
    """Each waits for the one that came after it."""
    story = given(saga_of(step("a"), step("b"), step("c"), step("d"))).succeeds("a", "b", "c").rejects("d")
    assert story.undone == ["c"]
    assert story.undoes("c").undone == ["c", "b"]
    assert story.undoes("b").undone == ["c", "b", "a"]
    assert story.undoes("a").status() is SagaStatus.COMPENSATED


def test_independent_branches_are_undone_together_and_what_binds_them_around_them() -> None:
    """Reverse topological: the join first, then both branches, then what came before them."""
    plan = fan(step("a"), step("b"), first=step("f"), join=step("j"))
    story = given(saga_of(*plan.steps, step("z", after=("j",)))).succeeds("f", "a", "b", "j").rejects("z")
    assert story.undone == ["j"]
    assert sorted(story.undoes("j").undone) == ["a", "b", "j"]
    assert "f" not in story.undoes("a").undone
    assert story.undoes("b").undone[-1] == "f"


def test_a_step_without_compensation_is_left_out() -> None:
    """Its definition gave a reason; the order of the others stands."""
    story = given(saga_of(step("a"), step("m", no_compensation="a mail"), step("b"))).succeeds("a", "m").rejects("b")
    assert story.to_undo() == ("a",)
    assert story.undoes("a").status() is SagaStatus.COMPENSATED


def test_a_compensation_has_its_own_time_out_and_attempts() -> None:
    """The action's three attempts and ten seconds are not its own."""
    story = given(saga_of(step("a", compensation_timeout_seconds=99.0), step("b"))).succeeds("a").rejects("b")
    assert story.open("a").deadline == 99.0
    story.breaks("a").wakes().breaks("a")
    assert story.at("a").compensation.failed == 2
    assert story.is_("a") is StepStatus.COMPENSATION_FAILED


def test_a_compensation_that_failed_is_tried_again_after_its_back_off_even_after_a_reload() -> None:
    """The next attempt and the count of failures are in the journal."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b").breaks("a")
    assert story.refolded() == story.saga
    assert story.last.wake_at == 1.0
    assert story.wakes().undoes("a").status() is SagaStatus.COMPENSATED


def test_a_compensation_that_gives_up_does_not_stop_the_others() -> None:
    """(checked) "continue": the rest is undone, in order; then a person is needed. Never COMPENSATED."""
    story = given(saga_of(step("a"), step("b"), step("c"))).succeeds("a", "b").rejects("c").gives_up("b")
    assert story.is_("b") is StepStatus.COMPENSATION_FAILED
    assert story.undone == ["b", "a"]
    assert story.undoes("a").status() is SagaStatus.NEEDS_ATTENTION


def test_the_last_compensation_to_give_up_needs_attention_too() -> None:
    """(checked) All but one were undone; that is not "compensated"."""
    story = given(saga_of(step("a"), step("b"), step("c"))).succeeds("a", "b").rejects("c").undoes("b").gives_up("a")
    assert story.status() is SagaStatus.NEEDS_ATTENTION


def test_halt_stops_at_the_first_compensation_that_gives_up() -> None:
    """(checked) The definition asked for it: nothing else is undone until a person has decided."""
    plan = saga_of(step("a"), step("b"), step("c"), on_compensation_failure="halt")
    story = given(plan).succeeds("a", "b").rejects("c").gives_up("b")
    assert story.undone == ["b"]
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.asked("skip", step="b").undone == ["b", "a"]


def test_halt_lets_a_parallel_undo_end_and_begins_no_other() -> None:
    """What runs is not torn off; what waits for its back-off is not begun."""
    plan = fan(step("a"), step("b"), first=step("f"), join=step("j"), on_compensation_failure="halt")
    story = given(plan).succeeds("f", "a", "b").rejects("j").rejects("b")
    assert story.status() is SagaStatus.COMPENSATING
    story.breaks("a")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert story.undone == ["b", "a"]


def test_a_rejected_compensation_gives_up_at_once() -> None:
    """Another call would be refused, too."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b").rejects("a")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert "rejected" in str(story.at("a").attention)


def test_a_compensation_that_can_not_be_called_gives_up_at_once() -> None:
    """Its code is missing: a person is needed."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b")
    story.tells(facts.Impossible("a", COMPENSATION, 1, OOPS))
    assert story.status() is SagaStatus.NEEDS_ATTENTION


def test_compensation_is_shielded_from_a_cancel() -> None:
    """A cancel during the rollback is answered and disturbs nothing."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b").asked("cancel", id="c")
    assert story.answers() == {"c": "applied"}
    assert story.open("a").operation is COMPENSATION
    assert story.undoes("a").status() is SagaStatus.COMPENSATED


def test_every_failure_of_a_compensation_is_kept() -> None:
    """The journal holds each problem and why it gave up."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b").gives_up("a")
    assert [entry.problem for entry in story.all(AttemptUnknown)] == [OOPS, OOPS]
    (gave_up,) = story.all(CompensationGaveUp)
    assert "failed 2 times" in gave_up.why


@pytest.mark.parametrize("end", [Story.loses, Story.interrupts], ids=["lost", "interrupted"])
def test_a_compensation_that_ended_with_its_process_is_repeated_at_once(end: object) -> None:
    """It uses up none of its attempts."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").rejects("b")
    end(story, "a")
    assert story.started[-2:] == ["undo a", "undo a"]
    assert story.at("a").compensation.failed == 0


def test_a_compensation_whose_processes_keep_dying_gives_up() -> None:
    """Crashes of an undo count against `recoveries_max`, too."""
    story = given(saga_of(step("a"), step("b"), recoveries_max=1)).succeeds("a").rejects("b").loses("a").loses("a")
    assert story.status() is SagaStatus.NEEDS_ATTENTION
    assert "process died 2 times" in str(story.at("a").attention)


def test_a_step_in_doubt_is_undone_only_when_its_call_can_not_land_any_more() -> None:
    """The attempt's hard deadline plus `late_grace`; with a key alone nothing else keeps a late call out."""
    plan = saga_of(step("a", timeout_seconds=10.0), late_grace_seconds=7.0)
    story = given(plan).breaks("a").asked("cancel")
    assert story.undone == []
    assert story.last.wake_at == 17.0
    assert story.wakes(at=16.9).undone == []
    assert story.wakes(at=17.0).undone == ["a"]


def test_the_last_of_several_attempts_in_doubt_counts() -> None:
    """Any of them may still land."""
    story = given(saga_of(step("a"))).breaks("a").wakes(at=1.0).breaks("a").wakes(at=3.0).breaks("a")
    assert story.status() is SagaStatus.COMPENSATING
    assert story.last.wake_at == 3.0 + 10.0 + 5.0


def test_behind_a_barrier_a_step_in_doubt_is_undone_at_once() -> None:
    """The participant refuses the late call itself."""
    assert given(saga_of(step("a", barrier=True))).breaks("a").asked("cancel").undone == ["a"]


def test_a_step_that_landed_for_sure_is_undone_at_once() -> None:
    """A late success has told its result, so there is nothing to wait for."""
    story = given(saga_of(step("a"), step("b"))).breaks("a").asked("cancel")
    assert story.undone == []
    assert story.arrives_late("a").undone == ["a"]


def test_steps_before_one_that_must_wait_wait_with_it() -> None:
    """Reverse order binds: the earlier step is not undone first."""
    story = given(saga_of(step("a"), step("b"))).succeeds("a").breaks("b").asked("cancel")
    assert story.undone == []
    assert story.wakes().undone == ["b"]


def test_a_saga_with_nothing_to_undo_is_compensated_at_once() -> None:
    """Rejected at its first step: nothing was done, nothing stands."""
    story = given(saga_of(step("a"), step("b"))).rejects("a")
    assert story.status() is SagaStatus.COMPENSATED
    assert story.undone == []
