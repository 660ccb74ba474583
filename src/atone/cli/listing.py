"""`atone list`: one line a saga, oldest first.

Owns the table, the pages and the filter by status. Reads hot rows only, so a saga whose journal is damaged is listed
like any other; of a choreographed one nobody is the worker: its events are. Called by the command of that name.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from atone._core.state import SagaStatus
from atone.cli.exits import Exit, Stop
from atone.cli.output import Output
from atone.cli.place import find_any
from atone.cli.safe import safe
from atone.cli.saga_json import summary_json
from atone.cli.times import age, wait
from atone.store import Query, Store, Summary, Viewing

_PAGE_MAX = 10_000

STATUS_STYLES: dict[str, str] = {
    SagaStatus.PENDING: "dim",
    SagaStatus.RUNNING: "cyan",
    SagaStatus.COMPENSATING: "yellow",
    SagaStatus.COMPLETED: "green",
    SagaStatus.COMPENSATED: "magenta",
    SagaStatus.FAILED: "red",
    SagaStatus.NEEDS_ATTENTION: "bold red",
}


async def list_sagas(
    out: Output,
    store: Store,
    *,
    now: float,
    tenant: str,
    name: str | None,
    statuses: Sequence[str],
    limit: int,
    after: str | None,
) -> Exit:
    """Write one page of sagas."""
    if not 1 <= limit <= _PAGE_MAX:
        raise Stop(
            Exit.USAGE, "usage", f"A page holds 1 to {_PAGE_MAX} sagas; give a --limit between, and use --after."
        )
    wanted = frozenset(_status(one) for one in statuses) or None
    last = None if after is None else (await find_any(store, tenant, after, name))[0].key
    query = Query(tenant=tenant, name=name, statuses=wanted, after=last, limit=limit + 1)
    seen = await store.views.find(query) if isinstance(store, Viewing) else ()
    found = sorted([*await store.find(query), *seen], key=lambda one: one.key)
    page, more = found[:limit], len(found) > limit
    choreographed = frozenset(one.key for one in seen)
    if out.as_json:
        for one in page:
            out.data(summary_json(one, choreographed=one.key in choreographed))
        return Exit.DONE
    if not page:
        out.say("No saga fits.")
        return Exit.DONE
    out.show(_table(page, now, choreographed))
    if more:
        out.say(f"There are more. Add: --after {page[-1].name}/{page[-1].saga_id}")
    return Exit.DONE


def status_text(status: str) -> Text:
    """Return a status in its colour."""
    return Text(safe(status), STATUS_STYLES.get(status, ""))


def _status(given: str) -> str:
    try:
        return SagaStatus(given.lower().replace("-", "_")).value
    except ValueError:
        known = ", ".join(status.value for status in SagaStatus)
        raise Stop(Exit.USAGE, "usage", f"There is no status {given!r}. Give one of: {known}.") from None


def _table(page: Sequence[Summary], now: float, choreographed: frozenset[bytes]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("ID", overflow="fold", min_width=12)
    table.add_column("NAME", overflow="fold", min_width=8)
    table.add_column("STATUS", no_wrap=True)
    table.add_column("AGE", no_wrap=True, justify="right")
    table.add_column("WAKE", no_wrap=True)
    table.add_column("WORKER", overflow="ellipsis", no_wrap=True, min_width=6)
    for one in page:
        table.add_row(
            Text(safe(one.saga_id)),
            Text(safe(one.name)),
            status_text(one.status),
            age(now - one.created_at),
            wait(one.wake_at, now),
            Text("events" if one.key in choreographed else safe(one.owner or "-")),
        )
    return table
