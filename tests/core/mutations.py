"""The list of mutants: one change to the core for each rule that must not be broken, and the test that must see it.

Owns the list alone; `mutants.py` applies it. `old` must stand exactly once in its file, so that the list fails loudly
when the core changes. `checked` marks the rules that the design marks so: leave one out and a saga is lost, done twice
or falsely called compensated.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One change, the rule it breaks, and the test (module::name) that must fail then."""

    file: str
    old: str
    new: str
    breaks: str
    killed_by: str
    checked: bool = False


INTENT = (
    Mutant(
        "draft.py",
        "        self.record(new(AttemptStarted, (step.name, operation, attempt, deadline, now)))\n",
        "        if operation is not Operation.COMPENSATION:\n"
        "            self.record(new(AttemptStarted, (step.name, operation, attempt, deadline, now)))\n",
        "intent before act, backward too",
        "test_intent::test_the_intent_of_an_undo_comes_before_the_undo",
        checked=True,
    ),
    Mutant(
        "draft.py",
        "        if not self.may_start:\n            self.wake(self.now)\n            return\n        now = self.now\n",
        "        now = self.now\n",
        "no intent while the worker drains",
        "test_intent::test_a_draining_worker_records_outcomes_and_begins_nothing",
    ),
    Mutant(
        "forward.py",
        "    if state.due_at > draft.now:\n        draft.wake(state.due_at)\n    elif state.due is",
        "    if state.due is",
        "no intent during back-off",
        "test_intent::test_a_look_before_the_back_off_is_over_begins_nothing",
    ),
    Mutant(
        "attempts.py",
        "settle_unknown(draft, name, delay=0.0, counted=False)",
        "settle_unknown(draft, name, delay=0.0)",
        "a crash never exhausts a policy",
        "test_intent::test_a_crash_does_not_exhaust_a_policy_that_was_tightened_meanwhile",
    ),
    Mutant(
        "fold.py",
        "tries._replace(lost=tries.lost + 1)",
        "tries._replace(lost=tries.lost + 1, failed=tries.failed + 1)",
        "a crash uses up no attempt",
        "test_intent::test_an_attempt_that_ended_with_its_process_uses_up_no_attempt",
    ),
    Mutant(
        "attempts.py",
        "if times > draft.plan.recoveries_max else None",
        "if times > draft.plan.recoveries_max + 9999 else None",
        "crashes are bounded",
        "test_intent::test_a_step_whose_processes_keep_dying_needs_attention",
    ),
    Mutant(
        "attempts.py",
        "return opened is not None and opened.operation is operation and opened.attempt == attempt",
        "return opened is not None and opened.operation is operation",
        "an outcome belongs to its attempt",
        "test_intent::test_an_outcome_of_an_earlier_attempt_does_not_end_the_present_one",
    ),
)

UNKNOWN = (
    Mutant(
        "forward.py",
        "if step.has_compensation and (state.doubt or state.status is SUCCEEDED)",
        "if step.has_compensation and state.status is StepStatus.SUCCEEDED",
        "going backward, an unknown step is compensated",
        "test_unknown::test_a_step_that_gave_up_in_doubt_is_compensated",
        checked=True,
    ),
    Mutant(
        "fold.py",
        "    return step._replace(status=status, open=None, action=tries, problem=entry.problem)",
        "    failed = step._replace(status=StepStatus.FAILED, doubt=False)\n"
        "    return failed._replace(open=None, action=tries, problem=entry.problem)",
        "a rejection clears its own attempt only",
        "test_unknown::test_a_rejection_clears_its_own_attempt_only",
        checked=True,
    ),
    Mutant(
        "fold.py",
        "    if entry.answer is not Landed.LANDED:\n        return counted\n",
        "    if entry.answer is Landed.NOT_LANDED:\n        return counted._replace(doubt=False)\n"
        "    if entry.answer is not Landed.LANDED:\n        return counted\n",
        "not landed spares no compensation",
        "test_unknown::test_not_landed_spares_no_compensation",
        checked=True,
    ),
    Mutant(
        "attempts.py",
        "    if not _needs_nothing(draft, fact.step):\n        repeat_or_give_up(draft, fact.step, surely_absent",
        "    if fact.answer is not Landed.NOT_LANDED and not _needs_nothing(draft, fact.step):\n"
        "        repeat_or_give_up(draft, fact.step, surely_absent",
        "not landed permits a repeat",
        "test_unknown::test_not_landed_permits_a_repeat",
        checked=True,
    ),
    Mutant(
        "attempts.py",
        "    draft.record(ProbeAnswered(fact.step, fact.attempt, fact.answer, fact.result))\n",
        "    draft.record(ProbeAnswered(fact.step, fact.attempt, fact.answer, fact.result))\n"
        "    at = draft.plan.index[fact.step]\n"
        "    if fact.answer is Landed.NOT_LANDED and draft.plan.pivot == at:\n"
        "        draft.steps[at] = draft.steps[at]._replace(doubt=False)\n"
        '        return turn_back(draft, Cause("failure", fact.step, "it did not land"))\n',
        "not landed turns no pivot back",
        "test_unknown::test_not_landed_turns_no_pivot_back",
        checked=True,
    ),
    Mutant(
        "forward.py",
        "    if step.has_probe:\n",
        "    if step.has_probe and False:\n",
        "an unknown outcome is probed first",
        "test_unknown::test_an_unknown_outcome_is_probed_first",
    ),
    Mutant(
        "forward.py",
        "if step.at_most_once and not surely_absent:",
        "if False:",
        "an at-most-once step is not repeated",
        "test_unknown::test_an_at_most_once_step_in_doubt_waits_for_a_person",
    ),
    Mutant(
        "forward.py",
        "    if step.at_most_once and not step.barrier:\n        return max(",
        "    if False:\n        return max(",
        "an at-most-once step is probed when nothing can arrive any more",
        "test_found::test_an_at_most_once_action_was_repeated_while_its_first_call_could_still_land",
    ),
    Mutant(
        "fold.py",
        "elif step.result is not None and kind in _ENDS:",
        "elif False:",
        "a late success counts whatever the next attempt came to",
        "test_found::test_a_late_success_during_a_probe_led_to_a_second_effect",
    ),
    Mutant(
        "fold.py",
        "    return _doubted(counted._replace(open=None), step.open, entry.operation)",
        "    return counted._replace(open=None, status=StepStatus.PENDING)",
        "a lost attempt is unknown",
        "test_unknown::test_going_backward_an_unknown_step_is_compensated",
        checked=True,
    ),
)

DIRECTION = (
    Mutant(
        "decide.py",
        "    if not draft.is_backward:\n        go_forward(draft)\n    if draft.is_backward:\n",
        "    go_forward(draft)\n    if draft.is_backward:\n",
        "never forward again",
        "test_direction::test_a_saga_that_turned_back_is_not_completed_by_its_last_step",
        checked=True,
    ),
    Mutant(
        "attempts.py",
        "    return draft.is_backward or draft.at(name)[1]",
        "    return draft.at(name)[1]",
        "the end of a call decides nothing after the turn",
        "test_direction::test_the_direction_is_decided_once",
        checked=True,
    ),
    Mutant(
        "attempts.py",
        "    elif _needs_nothing(draft, fact.step):\n        return\n    elif fact.operation is PROBE:\n"
        "        _probe_failed(draft, fact.step)\n    elif step.role is RETRIABLE:",
        "    elif fact.operation is PROBE:\n        _probe_failed(draft, fact.step)\n    elif step.role is RETRIABLE:",
        "the direction is decided once",
        "test_direction::test_the_direction_is_decided_once",
        checked=True,
    ),
    Mutant(
        "forward.py",
        "    draft.record(DirectionDecided(cause, rollback_list(draft.plan, draft.steps), deadline))",
        "    draft.record(DirectionDecided(cause, (), deadline))",
        "the list stands in the decision",
        "test_direction::test_the_turn_is_one_entry_with_the_cause_and_the_list",
        checked=True,
    ),
    Mutant(
        "backward.py",
        "        if state.open is not None and state.open.operation is not COMPENSATION:\n",
        "        if False:\n",
        "running siblings are waited for",
        "test_direction::test_nothing_is_undone_while_a_sibling_is_under_way",
        checked=True,
    ),
    Mutant(
        "fold.py",
        "    return tuple(sorted((name, *rollback), key=plan.index.__getitem__, reverse=True))",
        "    return rollback",
        "a late success joins the list",
        "test_direction::test_a_sibling_that_succeeds_after_the_turn_joins_the_list",
        checked=True,
    ),
    Mutant(
        "fold.py",
        "{AttemptSucceeded, AttemptUnknown, AttemptLost, AttemptInterrupted, LateSuccess}",
        "{AttemptSucceeded, LateSuccess}",
        "a sibling that ends in doubt joins the list",
        "test_direction::test_a_sibling_that_ends_in_doubt_after_the_turn_joins_the_list",
        checked=True,
    ),
    Mutant(
        "forward.py",
        "if step.has_compensation and (state.doubt or state.status is SUCCEEDED)",
        "if step.has_compensation and state.open is None and (state.doubt or state.status is SUCCEEDED)",
        "a step that is being probed at the turn is on the list",
        "test_found::test_a_probe_open_at_the_cancel_left_its_step_off_the_list",
        checked=True,
    ),
    Mutant(
        "attempts.py",
        '    elif step.role is not COMPENSATABLE:\n        draft.record(AttentionRaised(fact.step, "it landed',
        '    elif False:\n        draft.record(AttentionRaised(fact.step, "it landed',
        "a pivot that landed after the turn is noticed",
        "test_found::test_a_pivot_that_landed_after_it_was_denied_went_unnoticed",
    ),
    Mutant(
        "fold.py",
        "    if step.open is not None or step.undo_begun or step.waived is not None:",
        "    if step.open is not None or backward:",
        "an action that landed after it was denied is undone",
        "test_found::test_an_action_that_landed_after_it_was_denied_was_never_undone",
    ),
)

COMPENSATION = (
    Mutant(
        "backward.py",
        "    if any(state.attention is not None for state in states):\n        return\n    waived",
        "    waived",
        "a failed compensation is never COMPENSATED",
        "test_compensation::test_a_compensation_that_gives_up_does_not_stop_the_others",
        checked=True,
    ),
    Mutant(
        "backward.py",
        "        if state.open is None and not halted and _is_next(draft, at):",
        "        if state.open is None and not halted:",
        "reverse order",
        "test_compensation::test_undos_run_in_reverse_order_one_after_the_other",
    ),
    Mutant(
        "backward.py",
        "    return any(state.status is _GAVE_UP and state.waived is None for state in steps)",
        "    return False",
        "halt stops the others",
        "test_compensation::test_halt_stops_at_the_first_compensation_that_gives_up",
        checked=True,
    ),
    Mutant(
        "backward.py",
        '    if plan.on_compensation_failure != "halt":\n        return False\n',
        "",
        "continue does not stop the others",
        "test_compensation::test_a_compensation_that_gives_up_does_not_stop_the_others",
        checked=True,
    ),
    Mutant(
        "backward.py",
        "    if failed >= step.compensation_retry.attempts:",
        "    if failed >= step.retry.attempts:",
        "a compensation has its own policy",
        "test_compensation::test_a_compensation_has_its_own_time_out_and_attempts",
    ),
    Mutant(
        "backward.py",
        "    return state.quiet_at + plan.late_grace_seconds",
        "    return 0.0",
        "an unknown step is undone when nothing can land any more",
        "test_compensation::test_a_step_in_doubt_is_undone_only_when_its_call_can_not_land_any_more",
    ),
    Mutant(
        "backward.py",
        "    if waived:\n",
        "    if False:\n",
        "a skipped undo is never COMPENSATED",
        "test_operator::test_a_skipped_undo_ends_the_saga_as_failed_with_the_reason",
        checked=True,
    ),
    Mutant(
        "attempts.py",
        "    elif state.compensation.started > 0 and state.waived is None and not step.barrier:",
        "    elif False:",
        "an action seen to land after its undo needs attention",
        "test_found::test_an_undo_that_ended_well_hid_that_its_action_landed_meanwhile",
    ),
)

PIVOT = (
    Mutant(
        "forward.py",
        "    if step.role is COMPENSATABLE:\n        draft.record(StepGaveUp(step.name))\n        turn_back",
        "    if step.role is not RETRIABLE:\n        at = draft.plan.index[step.name]\n"
        "        calm = state._replace(doubt=False, status=StepStatus.FAILED)\n"
        "        if draft.plan.pivot == at:\n"
        "            draft.steps[at] = calm\n"
        "        draft.record(StepGaveUp(step.name))\n        turn_back",
        "an unknown pivot is never guessed",
        "test_pivot::test_an_unknown_pivot_is_never_guessed",
        checked=True,
    ),
    Mutant(
        "forward.py",
        "return pivot.open is not None or pivot.doubt or pivot.status is SUCCEEDED",
        "return pivot.open is not None or pivot.status is SUCCEEDED",
        "a cancel turns no pivot in doubt back",
        "test_pivot::test_a_cancel_meeting_a_pivot_in_doubt_turns_nothing_back",
        checked=True,
    ),
    Mutant(
        "forward.py",
        "return pivot.open is not None or pivot.doubt or pivot.status is SUCCEEDED",
        "return pivot.doubt or pivot.status is SUCCEEDED",
        "a deadline or a cancel turns no pivot under way back",
        "test_pivot::test_a_deadline_that_passes_during_the_pivot_turns_nothing_back",
        checked=True,
    ),
    Mutant(
        "attempts.py",
        "    elif step.role is PIVOT and state.doubt:",
        "    elif False:",
        "a pivot in doubt that is rejected is not turned back",
        "test_pivot::test_a_pivot_in_doubt_that_is_rejected_is_not_turned_back",
        checked=True,
    ),
    Mutant(
        "forward.py",
        "for_ever = step.role is RETRIABLE",
        "for_ever = False",
        "after the pivot a step is repeated for ever",
        "test_pivot::test_after_the_pivot_a_step_is_repeated_for_ever",
    ),
    Mutant(
        "requests.py",
        'return "too_late", "the point of no return has passed"',
        'return "applied", ""',
        "a cancel after the pivot is told so",
        "test_cancel::test_a_cancel_after_the_pivot_is_too_late",
    ),
    Mutant(
        "forward.py",
        'if step.on_timeout == "backward" and not pivot_begun(draft.plan, draft.steps):',
        'if step.on_timeout == "backward":',
        "an event that does not come after the pivot turns nothing back",
        "test_pivot::test_an_event_that_does_not_come_after_the_pivot_turns_nothing_back",
        checked=True,
    ),
)

OUTSIDE = (
    Mutant(
        "decide.py",
        "    if draft.cold.requests:\n        answer_requests(draft)\n"
        "    if draft.status.is_final or draft.status is _NEEDS_ATTENTION:\n        return\n"
        "    expire_commands(draft)\n    if not draft.is_backward:\n        go_forward(draft)\n",
        "    if not draft.is_backward and draft.status is not _NEEDS_ATTENTION:\n        go_forward(draft)\n"
        "    if draft.cold.requests:\n        answer_requests(draft)\n"
        "    if draft.status.is_final or draft.status is _NEEDS_ATTENTION:\n        return\n",
        "no pivot starts past a durable cancel",
        "test_cancel::test_a_pivot_is_never_started_past_a_durable_cancel",
        checked=True,
    ),
    Mutant(
        "decide.py",
        "    if not saga.status.is_final:\n        _HEAR[type(fact)](draft, fact)\n        advance(draft)\n",
        "    _HEAR[type(fact)](draft, fact)\n    advance(draft)\n",
        "a final saga is never changed",
        "test_final::test_a_request_for_a_final_saga_is_never_applied",
        checked=True,
    ),
    Mutant(
        "decide.py",
        "    if not saga.status.is_final:\n        _HEAR[type(fact)](draft, fact)\n        advance(draft)\n",
        "    _HEAR[type(fact)](draft, fact)\n    if not draft.saga.status.is_final:\n        advance(draft)\n",
        "no fact changes a final saga",
        "test_final::test_a_late_success_does_not_reopen_a_final_saga",
        checked=True,
    ),
    Mutant(
        "fold.py",
        "    if request.id in cold.seen:\n        return\n",
        "",
        "requests are deduplicated by id",
        "test_operator::test_a_request_told_twice_is_applied_once",
    ),
    Mutant(
        "requests.py",
        "if is_known or is_passed or (not state.doubt and state.attention is None):",
        "if not state.doubt and state.attention is None:",
        "a step that succeeded can't be denied",
        "test_found::test_denying_a_step_that_had_succeeded_broke_the_decision",
    ),
    Mutant(
        "requests.py",
        '    if step.role is Role.PIVOT:\n        return "the point',
        '    if False:\n        return "the point',
        "the point of no return can't be skipped",
        "test_operator::test_a_skip_that_makes_no_sense_is_refused",
    ),
    Mutant(
        "requests.py",
        '    draft.record(SagaEnded(SagaStatus.FAILED, f"terminated',
        '    draft.record(SagaEnded(SagaStatus.COMPENSATED, f"terminated',
        "terminate ends FAILED",
        "test_cancel::test_terminate_stops_without_undo",
    ),
    Mutant(
        "forward.py",
        "        if deadline <= draft.now:\n            turn_back",
        "        if False:\n            turn_back",
        "a deadline before the pivot turns the saga back",
        "test_deadlines::test_a_saga_past_its_deadline_turns_back",
    ),
    Mutant(
        "backward.py",
        "    elif end is not None and due_at > end:\n",
        "    elif False:\n",
        "the rollback's deadline bounds its repeats",
        "test_deadlines::test_a_compensation_that_can_not_be_repeated_before_the_rollback_deadline_gives_up",
    ),
    Mutant(
        "draft.py",
        "deadline = deadline if end is None else min(deadline, end)",
        "pass",
        "an attempt is cut at the step's deadline",
        "test_deadlines::test_an_attempt_is_cut_at_the_step_deadline",
    ),
    Mutant(
        "forward.py",
        "    if step.has_when and state.condition is None:\n        draft.ask(step.name)\n        return False\n",
        "",
        "a condition is asked before its step begins",
        "test_waits::test_a_condition_is_asked_of_the_shell",
    ),
    Mutant(
        "forward.py",
        "    if step.does is Does.EVENT and letter is not None:",
        "    if step.does is Does.EVENT and letter is not None and state.due_at > draft.now:",
        "an event that was durable before its time-out was decided counts",
        "test_waits::test_an_event_in_the_same_turn_as_its_time_out_counts",
    ),
    Mutant(
        "requests.py",
        "    if draft.is_backward or len(still) <= taken:",
        "    if len(still) <= taken:",
        "an event after the turn is ignored",
        "test_waits::test_an_event_for_a_step_that_was_never_reached_is_ignored_after_the_turn",
    ),
    Mutant(
        "keys.py",
        'return f"{part_of_saga(tenant, saga_name, saga_id)}.{part_of_step(step, operation)}"',
        'return ":".join((tenant, saga_name, saga_id, step, operation))',
        "keys are unambiguous",
        "test_data::test_the_parts_of_a_key_never_run_together",
    ),
)

_WALKS = "test_usual::test_on_every_random_walk_the_usual_turn_is_what_the_rules_say"
USUAL = (
    Mutant(
        "usual.py",
        "saga.status is not _RUNNING or ",
        "",
        "a saga that undoes is not a usual one",
        _WALKS,
        checked=True,
    ),
    Mutant(
        "usual.py",
        "or saga.requests or",
        "or",
        "no usual turn overtakes a request",
        _WALKS,
        checked=True,
    ),
    Mutant(
        "usual.py",
        " or saga.deadline is not None:",
        ":",
        "a saga with a deadline is not a usual one",
        _WALKS,
    ),
    Mutant(
        "usual.py",
        "if not plan.is_plain or plan.deadline_seconds is not None:",
        "if not plan.is_plain:",
        "a saga begins with its deadline",
        _WALKS,
    ),
    Mutant(
        "usual.py",
        "saga.status is not _RUNNING or not plan.is_plain or",
        "saga.status is not _RUNNING or",
        "what is not a plain row is not a usual one",
        _WALKS,
    ),
    Mutant(
        "usual.py",
        " or opened.attempt != attempt:",
        ":",
        "a usual success belongs to the attempt under way",
        _WALKS,
    ),
    Mutant(
        "usual.py",
        " or opened.operation is not ACTION",
        "",
        "the success of an action does not end its probe",
        _WALKS,
    ),
    Mutant(
        "usual.py",
        "deadline = step.name, now + step.timeout_seconds",
        "deadline = step.name, now + step.timeout_seconds + 1",
        "the usual turn says what the rules say",
        _WALKS,
    ),
    Mutant(
        "draft.py",
        "state.action.started + 1, now + step.timeout_seconds",
        "state.action.started + 1, now + step.timeout_seconds + 1",
        "the rules say what the usual turn says",
        _WALKS,
    ),
    Mutant(
        "plan.py",
        "one.does is Does.ACTION and not one.has_when and",
        "one.does is Does.ACTION and",
        "a plain plan has no conditions",
        "test_usual::test_what_is_not_plain_is_left_to_the_rules",
    ),
    Mutant(
        "plan.py",
        "return all(at == 0 or at - 1 in before for",
        "return all(True for",
        "a plain plan is one row",
        "test_usual::test_what_is_not_plain_is_left_to_the_rules",
    ),
    Mutant(
        "decide.py",
        "if type(fact) is facts.Succeeded and may_start and",
        "if type(fact) is facts.Succeeded and",
        "a draining worker begins nothing, usual or not",
        "test_intent::test_a_draining_worker_records_outcomes_and_begins_nothing",
    ),
    Mutant(
        "decide.py",
        "    if may_start and (decision := usual_start",
        "    if (decision := usual_start",
        "a draining worker starts nothing, usual or not",
        "test_intent::test_a_saga_that_was_inserted_without_intent_is_pending_until_somebody_takes_it",
    ),
)

COMMANDS = (
    Mutant(
        "decide.py",
        "    for one in fact.unfit:\n        _unfit(draft, one)\n",
        "    _unfit(draft, fact.unfit[0])\n",
        "all requests that don't fit are refused together",
        "test_commands::test_replies_that_do_not_fit_are_refused_together",
    ),
    Mutant(
        "draft.py",
        "        if body is None:\n            self._wanted += ((step, operation, attempt),)\n            return\n",
        "        if body is None:\n"
        "            self._wanted += ((step, operation, attempt),)\n"
        "            body = b'null'\n",
        "a message is known before its intent",
        "test_commands::test_a_message_is_asked_for_before_anything_is_written",
    ),
    Mutant(
        "replies.py",
        "    if fact.version == draft.cold.version:\n",
        "    if True:\n",
        "a message says what the saga knows when it is sent",
        "test_commands::test_a_message_says_what_the_saga_knew_when_it_is_sent",
    ),
    Mutant(
        "replies.py",
        "    if fact.version != draft.cold.version:\n        return\n",
        "",
        "nobody is called for a message of an earlier moment",
        "test_commands::test_what_could_not_be_built_is_old_news_when_the_saga_has_gone_on",
    ),
    Mutant(
        "draft.py",
        "            if step.open is not None and not awaits_reply(self.plan.steps[at], step):\n",
        "            if step.open is not None:\n",
        "nothing is held while a reply is awaited",
        "test_commands::test_a_message_goes_out_in_the_turn_of_its_intent",
    ),
    Mutant(
        "draft.py",
        "        if self._calls or self._asks or self._wanted:\n",
        "        if self._calls or self._asks:\n",
        "a saga whose message is being built is not let go",
        "test_commands::test_a_message_is_asked_for_before_anything_is_written",
    ),
    Mutant(
        "draft.py",
        "        if not self.may_start:\n            self.wake(self.now)\n            return\n        now = self.now\n",
        "        if not self.may_start and step.does is not COMMAND:\n"
        "            self.wake(self.now)\n"
        "            return\n"
        "        now = self.now\n",
        "a draining worker sends nothing",
        "test_commands::test_a_draining_worker_sends_nothing",
    ),
    Mutant(
        "attempts.py",
        " or awaits_reply(step, state):\n        return\n",
        ":\n        return\n",
        "a command is not lost with a process",
        "test_commands::test_nobody_runs_a_command_so_none_is_lost_with_a_worker",
        checked=True,
    ),
    Mutant(
        "decide.py",
        "    expire_commands(draft)\n    if not draft.is_backward:\n        go_forward(draft)\n",
        "    if not draft.is_backward:\n        go_forward(draft)\n",
        "a command that nobody answers is given up",
        "test_commands::test_a_command_that_nobody_answers_is_sent_again",
    ),
    Mutant(
        "replies.py",
        "and state.open.deadline <= draft.now:\n",
        "and True:\n",
        "a command is not given up before its deadline",
        "test_commands::test_a_command_is_not_overdue_before_its_deadline",
    ),
    Mutant(
        "replies.py",
        "                draft.wake(state.open.deadline)\n",
        "",
        "somebody looks when a reply is overdue",
        "test_commands::test_a_saga_that_turns_back_waits_for_the_commands_under_way",
    ),
    Mutant(
        "decide.py",
        "    if not await_replies(draft) and draft.rests()",
        "    if (await_replies(draft) or True) and draft.rests()",
        "a saga is not parked while a reply is awaited",
        "test_commands::test_a_saga_is_not_parked_while_a_reply_is_awaited",
    ),
    Mutant(
        "replies.py",
        "    if not 0 < request.attempt <= sent.started:\n",
        "    if False:\n",
        "a reply to what was never sent is refused",
        "test_commands::test_a_reply_that_can_mean_nothing_is_refused",
    ),
    Mutant(
        "replies.py",
        "    if step.does is not COMMAND or request.operation is PROBE or request.landed is None:\n",
        "    if False:\n",
        "only commands have replies",
        "test_commands::test_a_reply_that_can_mean_nothing_is_refused",
    ),
    Mutant(
        "replies.py",
        "    if not attempts.is_news(state, request.attempt):\n",
        "    if False:\n",
        "a reply that comes twice counts once",
        "test_commands::test_the_same_reply_counts_once",
    ),
    Mutant(
        "replies.py",
        "    if _is_awaited(state, request):\n        # All attempts",
        "    if _is_awaited(state, request) and state.open.attempt == request.attempt:\n        # All attempts",
        "a reply to an earlier attempt ends the present one",
        "test_commands::test_a_reply_to_an_earlier_attempt_ends_the_present_one",
    ),
    Mutant(
        "replies.py",
        " or state.open.attempt != request.attempt:\n",
        ":\n",
        "a rejection clears its own attempt only, by message too",
        "test_commands::test_a_rejection_of_an_earlier_attempt_clears_nothing",
        checked=True,
    ),
    Mutant(
        "replies.py",
        "        attempts.landed_late(draft, facts.Succeeded(name, ACTION, request.attempt, result))\n",
        "        pass\n",
        "a late reply is not lost",
        "test_commands::test_a_late_reply_after_the_turn_joins_the_list",
        checked=True,
    ),
    Mutant(
        "replies.py",
        "    if not _is_awaited(state, request) and state.due is not COMPENSATION:\n",
        "    if not _is_awaited(state, request):\n",
        "a late reply to an undo counts",
        "test_commands::test_a_late_reply_to_an_undo_counts",
    ),
    Mutant(
        "replies.py",
        "    if not _is_awaited(state, request) and state.due is not COMPENSATION:\n",
        "    if state.status is StepStatus.COMPENSATED:\n",
        "an undo that gave up is left to the person",
        "test_commands::test_a_reply_to_an_undo_that_gave_up_is_left_to_the_person",
    ),
    Mutant(
        "replies.py",
        '            draft.record(CompensationGaveUp(fact.step, f"its command can\'t be sent: {fact.problem}"))\n',
        '            draft.record(AttentionRaised(fact.step, "it can\'t be sent"))\n',
        "an undo that can't be sent gives up",
        "test_commands::test_an_undo_that_cannot_be_built_gives_up",
    ),
    Mutant(
        "replies.py",
        '        return None if known else f"',
        '        return None if True else f"',
        "a success after the end is told",
        "test_commands::test_a_reply_to_a_saga_that_is_over_is_told_if_it_is_news",
    ),
    Mutant(
        "replies.py",
        "    if not request.landed or request.id in saga.seen:\n        return None\n",
        "",
        "a rejection after the end is no news",
        "test_commands::test_a_reply_to_a_saga_that_is_over_is_told_if_it_is_news",
    ),
    Mutant(
        "plan.py",
        "if value is not None or key not in _LATER}",
        "}",
        "plans of before keep their hash",
        "test_commands::test_plans_without_commands_keep_their_hash_and_text",
    ),
    Mutant(
        "state.py",
        "self.compensation.started > 0 or self.status is StepStatus.COMPENSATION_FAILED",
        "self.compensation.started > 0",
        "an undo that could not be sent stays given up when its action is seen to have landed",
        "test_commands::test_a_late_reply_does_not_hide_an_undo_that_could_not_be_sent",
    ),
)

PAGES = (
    Mutant(
        "preview.py",
        "if saga.is_backward or plan.pivot is None or not pivot_begun(plan, saga.steps):",
        "if True:",
        "a preview says that there is no way back",
        "test_preview::test_a_preview_says_why_there_is_no_way_back",
    ),
    Mutant(
        "preview.py",
        "begins.setdefault(entry.step, clock - now)",
        "begins.setdefault(entry.step, 0.0)",
        "a preview says how long an undo waits",
        "test_preview::test_what_a_preview_says_is_what_a_cancel_does",
    ),
    Mutant(
        "preview.py",
        "acts = [_act(*pairs[plan.index[name]], seconds) for name, seconds in begins.items()]",
        "acts = [_act(*pairs[plan.index[name]], seconds) for name, seconds in reversed(begins.items())]",
        "a preview names the undos in their order",
        "test_preview::test_what_a_preview_says_is_what_a_cancel_does",
    ),
    Mutant(
        "explain.py",
        'if answer != "too_late":',
        "if True:",
        "only commands that apply are offered",
        "test_explain::test_it_names_the_commands_that_apply",
    ),
)

MUTANTS: tuple[Mutant, ...] = (
    *PAGES,
    *COMMANDS,
    *USUAL,
    *INTENT,
    *UNKNOWN,
    *DIRECTION,
    *COMPENSATION,
    *PIVOT,
    *OUTSIDE,
)
