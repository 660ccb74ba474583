"""Mutants that nothing can notice, because the changed code does the same: each by its name, with the reason.

Owns the list; whoever adds to it has looked for a test first. Read by the command, which counts these as neither dead
nor alive, and by a test that holds the names against the source.
"""

from __future__ import annotations

_AS_LONG = "a state has one step state for each step of its plan; strict only asserts that"
_ASKED = "the answer is only asked whether it is true, and None is as little as False"

EQUIVALENT: dict[str, str] = {
    "events.py _told: zip(steps, folding.steps, strict=True) -> zip(steps, folding.steps)": _AS_LONG,
    "explain.py _pairs: zip(plan.steps, saga.steps, strict=True) -> zip(plan.steps, saga.steps)": _AS_LONG,
    "forward.py rollback_list: zip(reversed(plan.steps), reversed(steps), strict=True) -> "
    "zip(reversed(plan.steps), reversed(steps))": _AS_LONG,
    "preview.py preview: zip(plan.steps, saga.steps, strict=True) -> zip(plan.steps, saga.steps)": _AS_LONG,
    "preview.py _next_success: zip(plan.steps, decision.saga.steps, strict=True) -> "
    "zip(plan.steps, decision.saga.steps)": _AS_LONG,
    "replies.py await_replies: zip(draft.plan.steps, draft.steps, strict=True) -> "
    "zip(draft.plan.steps, draft.steps)": _AS_LONG,
    "requests.py _troubled: zip(draft.plan.steps, draft.steps, strict=True) -> "
    "zip(draft.plan.steps, draft.steps)": _AS_LONG,
    "event_worlds.py _is_due: return False -> return None": _ASKED,
}
