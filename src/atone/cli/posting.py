"""`atone outbox`: what waits to be published, and what no broker takes.

Owns the table. Shows ids, topics, sizes and reasons, and no body. Must not change anything. Called by the command of
that name.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from atone.cli.exits import Exit, Stop
from atone.cli.output import Output
from atone.cli.safe import safe
from atone.cli.times import moment, span
from atone.store import Posting, SetAside, Store

_SHOWN_MAX = 10_000


async def show_outbox(out: Output, store: Store, *, limit: int) -> Exit:
    """Write what the outbox holds."""
    if not 1 <= limit <= _SHOWN_MAX:
        raise Stop(Exit.USAGE, "usage", f"Between 1 and {_SHOWN_MAX} messages can be shown; give a --limit between.")
    if not isinstance(store, Posting):
        raise Stop(Exit.REFUSED, "unsupported", "This store can't tell what its outbox holds. Ask the database itself.")
    found, aside = await store.outstanding(), await store.set_aside(limit=limit)
    oldest_seconds = None if found.oldest_at is None else max(0.0, found.now - found.oldest_at)
    if out.as_json:
        shown = {"waiting": found.waiting, "oldest_seconds": oldest_seconds, "set_aside": found.refused}
        out.data({**shown, "messages": [_as_json(one) for one in aside]})
        return Exit.DONE
    waited = "" if oldest_seconds is None else f", the oldest for {span(oldest_seconds)}"
    out.say(f"Messages that wait to be published: {found.waiting}{waited}.")
    if found.refused:
        out.say(f"Set aside, because no broker takes them: {found.refused}.")
        out.show(_table(aside))
    return Exit.DONE


def _as_json(one: SetAside) -> dict[str, object]:
    message = one.message
    named = {"id": message.id, "topic": message.topic, "key": message.key, "bytes": len(message.body)}
    return {**named, "why": one.why, "at": one.at}


def _table(aside: Sequence[SetAside]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("MESSAGE", "TOPIC", "KEY", "BYTES", "SET ASIDE", "WHY"):
        table.add_column(name, overflow="fold", min_width=len(name))
    for one in aside:
        message = one.message
        words = (message.id, message.topic, message.key, str(len(message.body)), moment(one.at), one.why)
        table.add_row(*(Text(safe(word)) for word in words))
    return table
