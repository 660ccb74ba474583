"""`atone outbox`: what waits to be published, and what no broker takes; the latter is posted again or dropped.

Owns the table, and the line in the log that says who changed what, and why. Shows ids, topics, sizes and reasons, and
no body. Must not touch what waits. Called by the command of that name.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from atone.cli.asking import confirm, said
from atone.cli.exits import Exit, Stop
from atone.cli.output import Output
from atone.cli.safe import safe
from atone.cli.times import moment, span
from atone.store import Posting, SetAside, Store

log = logging.getLogger("atone.outbox")

_SHOWN_MAX = 10_000


@dataclass(frozen=True)
class Aside:
    """What to do about one message that was set aside, as given on the command line."""

    again: str | None
    drop: str | None
    reason: str | None
    by: str | None
    yes: bool

    @property
    def is_asked(self) -> bool:
        """Whether there is anything to do: an empty id is one that nobody has."""
        return self.again is not None or self.drop is not None

    def checked(self) -> tuple[str, str]:
        """Return the reason, and who asks.

        Raises:
            Stop: One of them is missing or too long, they come without anything to do, or two things are to be done.
        """
        if not self.is_asked:
            raise Stop(Exit.USAGE, "usage", "Say what the reason is for. Add: --again ID, or --drop ID")
        if self.again is not None and self.drop is not None:
            raise Stop(
                Exit.USAGE, "usage", "A message is posted again or dropped. Give --again or --drop, one of them."
            )
        return said(self.reason, self.by, kept="goes into the log")


async def show_outbox(out: Output, store: Store, *, limit: int) -> Exit:
    """Write what the outbox holds."""
    if not 1 <= limit <= _SHOWN_MAX:
        raise Stop(Exit.USAGE, "usage", f"Between 1 and {_SHOWN_MAX} messages can be shown; give a --limit between.")
    posting = _posting(store)
    found, aside = await posting.outstanding(), await posting.set_aside(limit=limit)
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


async def settle_aside(out: Output, store: Store, wish: Aside) -> Exit:
    """Post a message again that was set aside, or drop it."""
    reason, by = wish.checked()
    posting = _posting(store)
    if wish.drop is not None:
        kind, done, message_id = "drop", "dropped", wish.drop
        confirm(out, f"This forgets message {message_id!r}; nobody will ever get it.", yes=wish.yes)
        is_found = await posting.drop_set_aside(message_id)
    else:
        kind, done, message_id = "again", "posted again", wish.again or ""
        is_found = await posting.post_again(message_id)
    if not is_found:
        raise Stop(
            Exit.REFUSED,
            "unknown_message",
            f"No message {message_id!r} is set aside; nothing was changed. See which ones are with: atone outbox",
        )
    # A warning, since that is shown where nobody has set up a log: who did it and why is written down nowhere else.
    log.warning("message %s was %s by %s: %s", safe(message_id), done, safe(by), safe(reason))
    if out.as_json:
        out.data({"request": {"kind": kind, "id": message_id, "by": by, "reason": reason}, "verdict": "applied"})
    else:
        out.say(f"Message {message_id}: {done}.", "green")
    return Exit.DONE


def _posting(store: Store) -> Posting:
    if not isinstance(store, Posting):
        raise Stop(Exit.REFUSED, "unsupported", "This store can't tell what its outbox holds. Ask the database itself.")
    return store


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
