"""A journal's entries in words, each in its lane: the way forward, or the compensation.

Owns the sentences. Must not print or read a store; what it says is not safe to print before `safe`. A saga-level entry
stands in the lane that the saga is on at that moment. Used by the timeline.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from atone._core import journal
from atone._core.facts import Landed, Operation, Problem
from atone._core.journal import Entry
from atone._core.plan import COMMAND, Plan
from atone._core.state import Cause, Request, SagaStatus
from atone.cli.times import moment, span


class Lane(StrEnum):
    """Which column an entry stands in."""

    FORWARD = "forward"
    BACK = "compensation"


class Tone(StrEnum):
    """How an entry is coloured."""

    PLAIN = ""
    QUIET = "dim"
    GOOD = "green"
    DOUBT = "yellow"
    BAD = "red"
    ASKED = "cyan"


class Said(NamedTuple):
    """One thing to read. `payload` is a label and the stored bytes, which are shown only if asked for."""

    lane: Lane
    text: str
    tone: Tone = Tone.PLAIN
    problem: Problem | None = None
    payload: tuple[str, bytes] | None = None


_Attempt: TypeAlias = (
    journal.AttemptStarted
    | journal.AttemptSucceeded
    | journal.AttemptRejected
    | journal.AttemptUnknown
    | journal.AttemptLost
    | journal.AttemptInterrupted
    | journal.AttemptImpossible
)
_ATTEMPTS: dict[type, tuple[str, Tone]] = {
    journal.AttemptStarted: (" began", Tone.PLAIN),
    journal.AttemptSucceeded: (" succeeded", Tone.GOOD),
    journal.AttemptRejected: (" was rejected", Tone.BAD),
    journal.AttemptUnknown: (": outcome unknown", Tone.DOUBT),
    journal.AttemptLost: (": its process died, outcome unknown", Tone.DOUBT),
    journal.AttemptInterrupted: (": cut off by a shutdown, outcome unknown", Tone.DOUBT),
    journal.AttemptImpossible: (" could not be made", Tone.BAD),
}
_PROBED = {Landed.LANDED: "it landed", Landed.NOT_LANDED: "it did not land", Landed.CANNOT_TELL: "can't tell"}
_CALLED = {
    Operation.ACTION: "attempt",
    Operation.COMPENSATION: "compensation attempt",
    Operation.PROBE: "probe attempt",
}


class Narrator:
    """Tells a journal from its first row on; remembers the direction and who asked what.

    The saga's plan, where it can be read, tells which steps are sent as commands.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        steps = () if plan is None else plan.steps
        self._sent = {step.name for step in steps if step.does is COMMAND}
        self._here = Lane.FORWARD
        self._requests: dict[str, Request] = {}

    def tell(self, entry: Entry, at: float) -> list[Said]:
        """Return what one entry says; `at` is its row's time, epoch seconds."""
        if isinstance(entry, _Attempt):
            return [_of_attempt(entry, is_sent=entry.step in self._sent)]
        if isinstance(entry, journal.DirectionDecided):
            self._here = Lane.BACK
            return list(_of_direction(entry))
        if isinstance(entry, journal.RequestReceived):
            self._requests[entry.request.id] = entry.request
            return [self._of_request(entry.request)]
        if isinstance(entry, journal.RequestAnswered):
            return [self._of_answer(entry)]
        return [_of_step(entry, self._here, at) or _of_saga(entry, self._here)]

    def _of_request(self, request: Request) -> Said:
        if request.kind == "reply":
            return _of_reply(request)
        what = [request.kind, request.event or "", request.step or ""]
        if request.landed is not None:
            what.append("as landed" if request.landed else "as not landed")
        asked = " ".join(part for part in what if part)
        payload = None if request.payload is None else ("payload", request.payload)
        if request.kind == "event":
            return Said(self._here, f"event {request.event or '?'} came", Tone.ASKED, payload=payload)
        return Said(self._here, f"{asked}, asked by {request.by}: {request.reason}", Tone.ASKED, payload=payload)

    def _of_answer(self, entry: journal.RequestAnswered) -> Said:
        request = self._requests.get(entry.id)
        subject = "a request" if request is None else f"the {request.kind}"
        note = f": {entry.note}" if entry.note else ""
        tone = Tone.ASKED if entry.answer == "applied" else Tone.DOUBT
        return Said(self._here, f"{subject} was {entry.answer.replace('_', ' ')}{note}", tone)


def cause_in_words(cause: Cause) -> str:
    """Return why a saga turned backward."""
    where = f" of {cause.step}" if cause.step else ""
    who = f" by {cause.by}" if cause.by else ""
    return f"{cause.trigger}{where}{who}: {cause.message}"


def _of_reply(request: Request) -> Said:
    called = f"{_CALLED[request.operation]} {request.attempt}"
    verdict = "done" if request.landed else f"rejected, {request.reason}"
    payload = None if request.payload is None else ("payload", request.payload)
    lane = _lane_of(request.operation)
    return Said(lane, f"{request.step}: {request.by} replied to {called}: {verdict}", Tone.ASKED, payload=payload)


def _of_attempt(entry: _Attempt, *, is_sent: bool) -> Said:
    verb, tone = _ATTEMPTS[type(entry)]
    if is_sent and isinstance(entry, journal.AttemptStarted) and entry.operation is not Operation.PROBE:
        verb = " was sent"
    lane = Lane.BACK if entry.operation is Operation.COMPENSATION else Lane.FORWARD
    problem: Problem | None = getattr(entry, "problem", None)
    payload = None
    if isinstance(entry, journal.AttemptSucceeded) and entry.operation is Operation.ACTION:
        payload = ("result", entry.result)
    return Said(lane, f"{entry.step}: {_CALLED[entry.operation]} {entry.attempt}{verb}", tone, problem, payload)


def _of_direction(entry: journal.DirectionDecided) -> Iterator[Said]:
    yield Said(Lane.FORWARD, f"turns backward: {cause_in_words(entry.cause)}", Tone.BAD)
    listed = ", ".join(entry.rollback) or "nothing"
    yield Said(Lane.BACK, f"to compensate: {listed}", Tone.DOUBT)


def _of_step(entry: Entry, here: Lane, at: float) -> Said | None:
    match entry:
        case journal.LateSuccess(step, attempt, result):
            return Said(
                Lane.FORWARD, f"{step}: attempt {attempt} landed after all", Tone.DOUBT, None, ("result", result)
            )
        case journal.ProbeAnswered(step, _, answer, result):
            payload = None if result is None else ("result", result)
            return Said(Lane.FORWARD, f"{step}: the probe says: {_PROBED[answer]}", Tone.DOUBT, None, payload)
        case journal.RetryScheduled(step, operation, due_at):
            when = f"in {span(due_at - at)}" if due_at > at else "at once"
            return Said(_lane_of(operation), f"{step}: next {_CALLED[operation]} {when}", Tone.QUIET)
        case journal.ConditionAnswered(step, runs):
            return Said(here, f"{step}: " + ("its condition holds" if runs else "skipped by its condition"), Tone.QUIET)
        case journal.WaitStarted(step, until):
            return Said(here, f"{step}: waits until {moment(until)}", Tone.QUIET)
        case journal.WaitEnded(step, result, request):
            end = "the wait is over" if request is None else "the event it waited for has come"
            return Said(here, f"{step}: {end}", Tone.GOOD, None, ("result", result))
        case journal.StepGaveUp(step):
            return Said(Lane.FORWARD, f"{step}: is not tried again", Tone.BAD)
        case journal.CompensationGaveUp(step, why):
            return Said(Lane.BACK, f"{step}: compensation given up: {why}", Tone.BAD)
        case journal.StepReset(step, operation):
            return Said(_lane_of(operation), f"{step}: another round of attempts", Tone.ASKED)
        case journal.StepResolved(step, operation, landed, result):
            what = "its compensation" if operation is Operation.COMPENSATION else "it"
            verdict = "landed" if landed else "did not land"
            payload = None if result is None else ("result", result)
            return Said(_lane_of(operation), f"{step}: vouched that {what} {verdict}", Tone.ASKED, None, payload)
        case journal.StepWaived(step, operation, why):
            what = "its compensation is skipped" if operation is Operation.COMPENSATION else "skipped"
            return Said(_lane_of(operation), f"{step}: {what}: {why}", Tone.ASKED)
        case _:
            return None


def _of_saga(entry: Entry, here: Lane) -> Said:
    match entry:
        case journal.SagaStarted():
            return Said(here, "started", Tone.PLAIN, payload=("input", entry.input))
        case journal.AttentionRaised(step, why):
            return Said(here, f"{step or 'the saga'}: needs a person: {why}", Tone.BAD)
        case journal.SagaParked():
            return Said(here, "waits for a person", Tone.BAD)
        case journal.SagaResumed():
            return Said(here, "goes on", Tone.ASKED)
        case journal.SagaEnded(status, why):
            reason = f": {why}" if why else ""
            return Said(here, f"ended {status.value}{reason}", _END_TONES.get(status, Tone.PLAIN))
        case _:
            # An entry that this page has no words for yet is named, never left out.
            return Said(here, type(entry).__name__, Tone.QUIET)


_END_TONES = {SagaStatus.COMPLETED: Tone.GOOD, SagaStatus.COMPENSATED: Tone.DOUBT, SagaStatus.FAILED: Tone.BAD}


def _lane_of(operation: Operation) -> Lane:
    return Lane.BACK if operation is Operation.COMPENSATION else Lane.FORWARD
