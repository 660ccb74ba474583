"""`atone explain` and `atone preview`: why a saga is where it is, what happens next, what a rollback would do now.

Owns how the core's answer is laid out, and the command lines that it suggests. Must not have an opinion: every sentence
comes from `_core`. Needs no user code, since the plan is in the store. Called by the commands of those names.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from atone._core.explain import Explanation, Option, Planned, Preview, Undo, explain, preview
from atone._core.plan import Plan
from atone._core.state import SagaState
from atone._runtime.reader import Glimpse
from atone.cli.asking import code_that_resolves, is_sealed_saga, is_undo, wanted_result
from atone.cli.exits import Exit, Stop
from atone.cli.output import Output
from atone.cli.safe import safe
from atone.cli.saga_json import summary_json
from atone.cli.times import span
from atone.store import Summary


def explain_saga(out: Output, found: Glimpse, now: float) -> Exit:
    """Write why a saga is where it is, what happens next, and what a person may do."""
    plan, state = _whole(found)
    try:
        told = explain(plan, state, now)
    except (AssertionError, ValueError) as broken:
        raise _senseless(found.summary, broken) from broken
    if out.as_json:
        out.data({"saga": summary_json(found.summary), **_explanation_json(told)})
        return Exit.DONE
    out.say(told.headline, "bold")
    _paragraph(out, "Why", told.why)
    _paragraph(out, "Next", told.next)
    if told.may:
        out.say("")
        out.say("You may", "bold")
        for option in told.may:
            out.say(f"  {suggestion(found.summary, plan, state, option)}", "cyan")
            out.say(f"      {option.does}")
    return Exit.DONE


def preview_saga(out: Output, found: Glimpse, now: float) -> Exit:
    """Write what a cancel would undo now, in which order, or why it can't."""
    plan, state = _whole(found)
    try:
        seen = preview(plan, state, now)
    except (AssertionError, ValueError) as broken:
        raise _senseless(found.summary, broken) from broken
    if out.as_json:
        out.data({"saga": summary_json(found.summary), **_preview_json(seen)})
    elif seen.why_not is not None:
        out.say(f"Nothing would be undone: {seen.why_not}.")
    else:
        out.say(_preview_head(state, seen), "bold")
        out.say("")
        out.show(_preview_table(seen))
        for step, why in seen.stands:
            out.say(f"The effect of {step} would stand: {why}.", "yellow")
    return Exit.DONE


def suggestion(summary: Summary, plan: Plan, state: SagaState, option: Option) -> str:
    """Return the command line of an option, to be copied; a call in code for what needs the key of the payloads."""
    if option.landed and option.step is not None and is_sealed_saga(state) and not is_undo(plan, state, option.step):
        return code_that_resolves(summary, option.step)
    words = ["atone", option.command, shlex.quote(f"{summary.name}/{summary.saga_id}")]
    if option.step is not None:
        words.append(shlex.quote(option.step))
    if option.landed is not None:
        words.append("--landed" if option.landed else "--not-landed")
    if option.landed and option.step is not None:
        wanted = wanted_result(plan, state, option.step)
        words += [] if wanted is None else [f"--result '{wanted} as JSON'"]
    return " ".join([*words, '--reason "..."'])


def _whole(found: Glimpse) -> tuple[Plan, SagaState]:
    if found.plan is None or found.state is None:
        look = f"atone show {found.summary.name}/{found.summary.saga_id}"
        raise Stop(Exit.REFUSED, "corrupt_journal", f"{found.trouble} See what can be read with: {look}")
    return found.plan, found.state


def _senseless(summary: Summary, broken: Exception) -> Stop:
    look = f"atone show {summary.name}/{summary.saga_id}"
    return Stop(
        Exit.REFUSED, "corrupt_journal", f"The journal tells what can't have happened: {broken} Look at it with: {look}"
    )


def _explanation_json(told: Explanation) -> dict[str, Any]:
    return {
        "headline": told.headline,
        "why": list(told.why),
        "next": list(told.next),
        "may": [{"command": one.command, "step": one.step, "landed": one.landed, "does": one.does} for one in told.may],
    }


def _preview_json(seen: Preview) -> dict[str, Any]:
    return {
        "possible": seen.is_possible,
        "why_not": seen.why_not,
        "order": list(seen.order),
        "steps": [
            {"step": one.step, "what": one.what.name.lower(), "why": one.why, "in_seconds": one.in_seconds}
            for one in seen.steps
        ],
        "stands": [{"step": step, "why": why} for step, why in seen.stands],
    }


def _paragraph(out: Output, title: str, sentences: Iterable[str]) -> None:
    for at, sentence in enumerate(sentences):
        if at == 0:
            out.say("")
            out.say(title, "bold")
        out.wrapped(sentence)


def _preview_head(state: SagaState, seen: Preview) -> str:
    if not seen.order:
        return "There is nothing to undo." if not state.is_backward else "Nothing is left to undo by itself."
    if state.is_backward:
        return "It is going back. Still to be undone, in this order:"
    return "A cancel now would undo, in this order:"


def _preview_table(seen: Preview) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("STEP", overflow="fold")
    table.add_column("WHAT", overflow="fold")
    table.add_column("WHY", overflow="fold")
    for cells in _preview_rows(seen):
        table.add_row(*cells)
    return table


def _preview_rows(seen: Preview) -> Iterator[tuple[Text, ...]]:
    for at, one in enumerate(seen.steps, start=1):
        number = str(at) if at <= len(seen.order) else "-"
        yield (
            Text(number),
            Text(safe(one.step)),
            Text(one.what.value, _UNDO_STYLES.get(one.what, "")),
            Text(safe(_why(one))),
        )


def _why(one: Planned) -> str:
    later = f"not before {span(one.in_seconds)} from now" if one.in_seconds > 0 else ""
    return "; ".join(part for part in (one.why, later) if part)


_UNDO_STYLES = {
    Undo.UNDO: "magenta",
    Undo.UNDO_UNKNOWN: "yellow",
    Undo.WAIT: "yellow",
    Undo.NOTHING: "dim",
    Undo.NEEDS_PERSON: "bold red",
}
