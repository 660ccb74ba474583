"""`atone show`: a saga's head and its whole journal, the compensation lane beside the way forward.

Owns the layout and the JSON document. Rows that can't be read are shown as such, with their number; the rest is shown
all the same. Payloads stay hidden and tracebacks out unless asked for. Called by the command of that name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from atone._core.plan import Plan
from atone._core.state import SagaState, SagaStatus, StepState
from atone._runtime.reader import Glimpse, Torn, Turned
from atone.cli.exits import Exit
from atone.cli.listing import status_text
from atone.cli.output import Output
from atone.cli.safe import safe
from atone.cli.saga_json import Shown, entry_json, payload_text, plain, step_json, summary_json
from atone.cli.times import age, clock, day, moment, span, wait
from atone.cli.words import Lane, Narrator, Said, Tone, cause_in_words


def show_saga(out: Output, found: Glimpse, shown: Shown, now: float) -> Exit:
    """Write a saga's head and timeline; REFUSED if a part of it can't be read."""
    if out.as_json:
        out.data(saga_document(found, shown))
    else:
        out.show(_head(found, now))
        out.say("")
        out.show(_timeline(found, shown))
        if found.summary.status == SagaStatus.NEEDS_ATTENTION:
            out.say("")
            out.say(f"What can be done about it: atone explain {found.summary.name}/{found.summary.saga_id}")
    return Exit.DONE if found.trouble is None else Exit.REFUSED


# For programs


def saga_document(found: Glimpse, shown: Shown) -> dict[str, Any]:
    """Return everything `show` knows as one JSON document."""
    state = found.state
    narrator = Narrator(found.plan)
    return {
        "saga": summary_json(found.summary),
        "cause": None if state is None else plain(state.cause, shown),
        "rollback": [] if state is None else list(state.rollback),
        "deadline": None if state is None else state.deadline,
        "broken": None if state is None else state.broken,
        "ended_because": None if state is None else state.ended_because,
        "unanswered": [] if state is None else plain(state.requests, shown),
        "steps": [step_json(step, step_state, shown) for step, step_state in _steps(found.plan, state)],
        "journal": [_row_json(row, narrator, shown) for row in found.journal],
        "unreadable_rows": [{"row": row.version, "why": row.why} for row in found.torn],
        "trouble": found.trouble,
    }


def _row_json(row: Turned, narrator: Narrator, shown: Shown) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for entry in row.entries:
        said = narrator.tell(entry, row.at)
        spoken = {"lane": said[-1].lane.value, "text": "; ".join(one.text for one in said)}
        entries.append({**entry_json(entry, shown), **spoken})
    return {"row": row.version, "at": row.at, "entries": entries}


def _steps(plan: Plan | None, state: SagaState | None) -> Iterator[tuple[Any, StepState]]:
    if plan is not None and state is not None:
        yield from zip(plan.steps, state.steps, strict=True)


# For people


def _head(found: Glimpse, now: float) -> Table:
    saga, state = found.summary, found.state
    head = Table.grid(padding=(0, 2))
    head.add_column(style="dim", no_wrap=True)
    head.add_column(overflow="fold")
    head.add_row("saga", Text(safe(saga.saga_id), "bold"))
    head.add_row("definition", Text(safe(f"{saga.name}, version {saga.definition_version}, tenant {saga.tenant}")))
    head.add_row("status", status_text(saga.status))
    head.add_row("started", f"{moment(saga.created_at)} ({age(now - saga.created_at)} ago)")
    if saga.owner is not None:
        head.add_row("worker", Text(safe(saga.owner)))
    if saga.wake_at is not None:
        head.add_row("due", f"{moment(saga.wake_at)} ({wait(saga.wake_at, now)})")
    if state is not None:
        _add_state(head, found, state)
    if found.trouble is not None:
        head.add_row("damage", Text(safe(found.trouble), "bold red"))
    return head


def _add_state(head: Table, found: Glimpse, state: SagaState) -> None:
    if state.cause is not None:
        head.add_row("backward", Text(safe(cause_in_words(state.cause)), "yellow"))
    if state.ended_because is not None:
        head.add_row("because", Text(safe(state.ended_because)))
    if state.broken is not None:
        head.add_row("broken", Text(safe(state.broken), "red"))
    for at, (step, step_state) in enumerate(_steps(found.plan, state)):
        head.add_row("" if at else "steps", _step_line(step.name, step_state))
    for request in state.requests:
        head.add_row("unanswered", Text(safe(f"{request.kind}, asked by {request.by}: {request.reason}"), "cyan"))


def _step_line(name: str, state: StepState) -> Text:
    line = Text.assemble(f"{safe(name)}: ", (state.status.value.replace("_", " "), _STEP_STYLES.get(state.status, "")))
    calls = [(state.action.started, "attempt"), (state.compensation.started, "compensation attempt")]
    counted = [f"{count} {what}{'s' if count > 1 else ''}" for count, what in calls if count]
    if counted:
        line.append(f" ({', '.join(counted)})", "dim")
    for remark in (state.attention, state.waived):
        if remark is not None:
            line.append(f"; {safe(remark)}", "red")
    return line


_STEP_STYLES: dict[str, str] = {
    "succeeded": "green",
    "failed": "red",
    "unknown": "yellow",
    "compensating": "yellow",
    "compensated": "magenta",
    "compensation_failed": "bold red",
}


# A row without entries: its worker gave the saga up until it is due.
_LET_GO = (Said(Lane.FORWARD, "let go; any worker may take it when it is due", Tone.QUIET),)


def _timeline(found: Glimpse, shown: Shown) -> Table:
    narrator = Narrator(found.plan)
    told = [(row, [one for entry in row.entries for one in narrator.tell(entry, row.at)]) for row in found.journal]
    has_way_back = any(said.lane is Lane.BACK for _, sayings in told for said in sayings)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0), expand=has_way_back)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("TIME (UTC)", no_wrap=True)
    table.add_column("AFTER", no_wrap=True, justify="right")
    table.add_column("FORWARD", ratio=1, overflow="fold")
    if has_way_back:
        table.add_column("COMPENSATION", ratio=1, overflow="fold")
    shown_day = ""
    for row, said in _with_torn(told, found.torn):
        if isinstance(row, Torn):
            table.add_row(str(row.version), "?", "", Text(safe(f"this row {row.why}"), "bold red"))
            continue
        today = day(row.at)
        when = clock(row.at) if today == shown_day else f"{today}\n{clock(row.at)}"
        shown_day = today
        lanes = [_cell([one for one in said or _LET_GO if one.lane is lane], shown) for lane in Lane]
        after = f"+{span(max(row.at - found.summary.created_at, 0.0))}"
        table.add_row(str(row.version), when, after, *(lanes if has_way_back else lanes[:1]))
    return table


def _with_torn(
    told: Sequence[tuple[Turned, list[Said]]], torn: Sequence[Torn]
) -> list[tuple[Turned | Torn, list[Said]]]:
    """Return all rows in order; one that reads but does not fit is followed by what is wrong with it."""
    rows: list[tuple[Turned | Torn, list[Said]]] = [*told, *((row, []) for row in torn)]
    return sorted(rows, key=lambda row: row[0].version)


def _cell(said: Sequence[Said], shown: Shown) -> Group:
    return Group(*(part for one in said for part in _parts(one, shown)))


def _parts(said: Said, shown: Shown) -> Iterator[Text]:
    yield Text(safe(said.text), said.tone.value)
    if said.problem is not None:
        yield Text(f"  {safe(str(said.problem))}", "red")
        if shown.tracebacks:
            yield from (Text(f"  {safe(line)}", "dim") for line in said.problem.traceback.splitlines())
    if said.payload is not None and shown.payloads:
        label, data = said.payload
        yield Text(f"  {label}: {safe(payload_text(data))}", "dim")
