"""Changes: retry, resolve, skip, cancel, terminate, each a request in the journal that the saga's owner answers.

Owns what is checked before anything is written, the question on a terminal, the wait for the answer and its status.
Must not decide: whether a request applies is the owner's to say. Called by the commands of those names.
"""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass
from typing import Any

import msgspec

from atone._core.plan import Plan
from atone._core.state import SagaState
from atone._runtime.reader import Glimpse, find_one, glimpse
from atone._runtime.requests import REASON_LENGTH_MAX, Answer, Receipt, ask
from atone.cli.exits import Exit, Stop
from atone.cli.output import Output
from atone.cli.place import find_saga
from atone.cli.safe import safe
from atone.cli.saga_json import summary_json
from atone.codec import Codec, is_sealed
from atone.errors import OutcomeTimeout, PayloadError, StoreError, StoreUnavailable
from atone.store import FINAL_STATUSES, Store, Summary

# What is asked on a terminal before a change that leaves effects standing.
_WARNINGS = {
    "terminate": "This ends {saga} as failed, without undoing anything.",
    "skip": "This leaves {step} of {saga} as it is; nobody will call it, or its compensation, any more.",
}


@dataclass(frozen=True)
class Wish:
    """One change as given on the command line; `result` is JSON text."""

    kind: str
    given: str
    name: str | None
    reason: str | None
    by: str | None
    wait_seconds: float
    step: str | None = None
    landed: bool | None = None
    result: str | None = None
    yes: bool = False


def checked(wish: Wish) -> tuple[str, str]:
    """Return the reason, and who asks.

    Raises:
        Stop: One of them is missing or too long, or `--landed` and `--not-landed` are.
    """
    reason, by = said(wish.reason, wish.by, kept="goes into the journal")
    if not wish.wait_seconds >= 0:  # not a number is refused too
        raise Stop(Exit.USAGE, "usage", "Nobody can wait for less than no time; give --wait 0 or more.")
    if wish.kind == "resolve" and wish.landed is None:
        raise Stop(Exit.USAGE, "usage", "Say what happened. Add: --landed, or --not-landed")
    return reason, by


def said(reason: str | None, by: str | None, *, kept: str) -> tuple[str, str]:
    """Return the reason, and who asks; `kept` says what becomes of it.

    Raises:
        Stop: One of them is missing or too long.
    """
    reason, by = (reason or "").strip(), _os_user() if by is None else by.strip()
    if not reason or len(reason) > REASON_LENGTH_MAX:
        text = f'Say why, in 1 to {REASON_LENGTH_MAX} characters; it {kept}. Add: --reason "..."'
        raise Stop(Exit.USAGE, "usage", text)
    if not by:
        raise Stop(Exit.USAGE, "usage", 'Say who asks. Add: --by "..."')
    return reason, by


async def change(out: Output, store: Store, tenant: str, wish: Wish) -> Exit:
    """Make one request and wait for its answer."""
    reason, by = checked(wish)
    summary = await find_saga(store, tenant, wish.given, wish.name)
    _refuse_final(summary)
    found = await glimpse(store, summary.key)
    _refuse_unknown_step(found.plan, wish.step)
    payload = _payload(found, wish)
    _confirm(out, summary, wish)
    receipt = await ask(
        store,
        summary.tenant,
        summary.name,
        summary.saga_id,
        wish.kind,
        by=by,
        reason=reason,
        step=wish.step,
        payload=payload,
        landed=wish.landed,
    )
    answer, why_not = await _answer(receipt, wish.wait_seconds)
    summary = await _summary_now(store, summary)
    if out.as_json:
        out.data(_document(summary, wish, receipt, answer, reason, by))
    else:
        _tell(out, summary, wish, answer, why_not)
    return _exit(answer)


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        return f"uid {os.getuid()}"


def _refuse_final(summary: Summary) -> None:
    if summary.status in FINAL_STATUSES:
        raise Stop(
            Exit.REFUSED,
            "request_refused",
            f"{summary.name} saga {summary.saga_id!r} is over ({summary.status}); nothing can be asked of it any more. "
            f"Look at it with: atone show {summary.name}/{summary.saga_id}",
        )


def _refuse_unknown_step(plan: Plan | None, step: str | None) -> None:
    if plan is not None and step is not None and step not in plan.index:
        raise Stop(
            Exit.REFUSED,
            "unknown_step",
            f"{plan.name} has no step {step!r}. Its steps are: {', '.join(plan.index)}.",
        )


def _payload(found: Glimpse, wish: Wish) -> bytes | None:
    """Return the result that goes with `resolve --landed`."""
    if wish.result is not None:
        if not wish.landed:
            raise Stop(Exit.USAGE, "usage", "A result goes with --landed only. Leave --result out, or add --landed.")
        _refuse_sealed(found, wish)
        return _json(wish.result)
    if not wish.landed or found.plan is None or wish.step is None or is_undo(found.plan, found.state, wish.step):
        return None
    _refuse_sealed(found, wish)
    wanted = wanted_result(found.plan, found.state, wish.step)
    if wanted is None:
        return b"null"
    raise Stop(
        Exit.USAGE,
        "usage",
        f"{wish.step} returns {wanted}, and later steps may need it. Say what it returned; add: --result 'JSON'",
    )


def _refuse_sealed(found: Glimpse, wish: Wish) -> None:
    """Stop if the saga's payloads are encrypted: its worker would refuse one that is not, and there is no key here."""
    if is_sealed_saga(found.state):
        call = code_that_resolves(found.summary, wish.step or "step")
        text = f"The payloads of this saga are encrypted, and there is no key here. Call from code that has it: {call}"
        raise Stop(Exit.REFUSED, "encrypted", text)


def is_sealed_saga(state: SagaState | None) -> bool:
    """Whether the saga's payloads are encrypted, as far as its input tells."""
    return state is not None and is_sealed(state.input)


def code_that_resolves(summary: Summary, step: str) -> str:
    """Return the call that does what `resolve --landed --result` can't do without a key."""
    return (
        f"await orchestrator.resolve({summary.name}, {summary.saga_id!r}, {step!r}, "
        'landed=True, result=..., reason="...")'
    )


def wanted_result(plan: Plan, state: SagaState | None, step: str) -> str | None:
    """Return the type of the result that goes with `resolve --landed`; None if none does."""
    result_type = plan.steps[plan.index[step]].result_type
    return None if result_type == "None" or is_undo(plan, state, step) else result_type


def is_undo(plan: Plan, state: SagaState | None, step: str) -> bool:
    """Whether it is the step's compensation that is vouched for: that has no result."""
    return state is not None and state.is_backward and state.steps[plan.index[step]].compensation.started > 0


def _json(text: str) -> bytes:
    codec = Codec()
    try:
        data = text.encode()
        codec.check_limits(data)
        msgspec.json.decode(data)
        return codec.seal(msgspec.json.format(data, indent=-1), b"")
    except (PayloadError, msgspec.DecodeError, ValueError, RecursionError) as wrong:
        raise Stop(
            Exit.USAGE, "usage", f"--result is no JSON that can be stored: {wrong} Quote it for your shell."
        ) from wrong


def _confirm(out: Output, summary: Summary, wish: Wish) -> None:
    warning = _WARNINGS.get(wish.kind)
    if warning is not None:
        saga = f"{summary.name} saga {summary.saga_id!r}"
        confirm(out, warning.format(saga=saga, step=wish.step), yes=wish.yes)


def confirm(out: Output, warning: str, *, yes: bool) -> None:
    """Ask on a terminal before something that can't be taken back; elsewhere nobody could answer.

    Raises:
        Stop: The answer is no.
    """
    if yes or not sys.stdin.isatty():
        return
    out.ask(safe(warning))
    try:
        answer = input()
    except EOFError:
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise Stop(Exit.REFUSED, "not_confirmed", "Nothing was changed. Answer y, or add --yes.")


async def _answer(receipt: Receipt, wait_seconds: float) -> tuple[Answer | None, str]:
    """Return the owner's answer, or why there is none."""
    try:
        return await receipt.answer(timeout=wait_seconds), ""
    except OutcomeTimeout:
        return None, ""
    except StoreError as error:  # it is recorded whatever the store says now
        return None, str(error)


async def _summary_now(store: Store, summary: Summary) -> Summary:
    try:
        found = await find_one(store, summary.tenant, summary.name, summary.saga_id)
    except StoreUnavailable:
        return summary
    return found or summary


def _exit(answer: Answer | None) -> Exit:
    if answer is None:
        return Exit.RECORDED
    return Exit.DONE if answer.applied else Exit.REFUSED


def _document(
    summary: Summary, wish: Wish, receipt: Receipt, answer: Answer | None, reason: str, by: str
) -> dict[str, Any]:
    return {
        "request": {
            "id": receipt.request_id,
            "kind": wish.kind,
            "step": wish.step,
            "landed": wish.landed,
            "by": by,
            "reason": reason,
        },
        "verdict": None if answer is None else answer.verdict,
        "note": None if answer is None else answer.note,
        "saga": summary_json(summary),
    }


def _tell(out: Output, summary: Summary, wish: Wish, answer: Answer | None, why_not: str) -> None:
    look = f"atone show {summary.name}/{summary.saga_id}"
    if answer is None:
        owner = summary.owner
        nobody = "no worker has answered yet; start one that has this definition."
        holder = f"worker {owner} holds the saga and has not answered yet."
        out.say(
            f"Recorded; {why_not or (nobody if owner is None else holder)} The request stands. Later: {look}", "yellow"
        )
        return
    note = f": {answer.note}" if answer.note else "."
    verdict = answer.verdict.replace("_", " ")
    out.say(f"{wish.kind}: {verdict}{note}", "green" if answer.applied else "red")
    out.say(f"{summary.saga_id} is now {summary.status.replace('_', ' ')}. See: {look}")
