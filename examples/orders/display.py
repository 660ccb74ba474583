"""Shows a run while it goes: one line that changes where the output is a terminal, a line now and then elsewhere.

Owns how progress and the books look. Decides nothing. Called by the demo and by `audit`. The changing line is rich's;
without rich there are plain lines.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from examples.orders.books import COMPLETED, Books, Mistake

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

_LIFE = ("pending", "running", "compensating", "needs_attention", "completed", "compensated", "failed")
_BAR_WIDTH = 20
_PLAIN_EVERY_SECONDS = 1.0
MISTAKES_SHOWN_MAX = 20


class Progress(msgspec.Struct, frozen=True):
    """How many sagas stand where, of how many: what the orchestrator's process tells the demo."""

    total: int
    counts: dict[str, int]
    causes: dict[str, int]
    """Why the ones that did not complete did not."""
    done: bool
    """Whether each has ended, or waits for a person."""

    @property
    def ended(self) -> int:
        """Sagas that are over for good."""
        return sum(self.counts.get(status, 0) for status in ("completed", "compensated", "failed"))


class Display:
    """Progress on standard error, so that standard output stays free for the result."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._live = _live_line()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def show(self, progress: Progress) -> None:
        """Show how many sagas stand where."""
        line = _progress_line(progress)
        if self._live is not None:
            self._live.update(_one_line(line), refresh=True)
        elif time.monotonic() - self._shown_at >= _PLAIN_EVERY_SECONDS:
            self._shown_at = time.monotonic()
            self.say(line)


def _progress_line(progress: Progress) -> str:
    filled = progress.ended * _BAR_WIDTH // max(progress.total, 1)
    bar = "#" * filled + "." * (_BAR_WIDTH - filled)
    return f"  {bar} {progress.ended}/{progress.total}  {numbers(progress.counts)}"


def kind_of(cause: str) -> str:
    """Return a cause without its particulars: the step and the first part of what it said."""
    return ": ".join(cause.split(": ")[:2])


def numbers(counts: Mapping[str, int]) -> str:
    """Return "3 running, 12 completed" for the counts that are not zero, statuses in the order of a saga's life."""
    names = sorted(counts, key=lambda name: (_LIFE.index(name) if name in _LIFE else len(_LIFE), name))
    return ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in names if counts[name]) or "nothing"


def _live_line() -> Live | None:
    try:
        from rich.console import Console
        from rich.live import Live
    except ImportError:
        return None
    return Live("", console=Console(stderr=True), transient=True)


def _one_line(text: str) -> Text:
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


def books_text(books: Books, mistakes: Sequence[Mistake]) -> str:
    """Return the books as a page of text: stock, money, parcels, and what is off."""
    return "\n".join([*_stock_lines(books), "", *_sum_lines(books), "", *_verdict_lines(mistakes)])


def _stock_lines(books: Books) -> list[str]:
    completed = {order.id for order in books.orders if books.ends.get(order.id) == COMPLETED}
    sold = {shelf.sku: 0 for shelf in books.shelves}
    for order in books.orders:
        for line in order.lines if order.id in completed else ():
            sold[line.sku] = sold.get(line.sku, 0) + line.quantity
    width = max((len(shelf.sku) for shelf in books.shelves), default=3)
    lines = [f"  {'article':{width}}  opening - sold = expected   on hand"]
    for shelf in books.shelves:
        expected = shelf.opening - sold[shelf.sku]
        mark = "" if expected == shelf.on_hand else "   OFF"
        numbers = f"{shelf.opening:7}   {sold[shelf.sku]:4}   {expected:8}   {shelf.on_hand:7}"
        lines.append(f"  {shelf.sku:{width}}  {numbers}{mark}")
    return lines


def _sum_lines(books: Books) -> list[str]:
    owed = sum(order.total_cents for order in books.orders if books.ends.get(order.id) == COMPLETED)
    captured = sum(entry.amount_cents for entry in books.ledger if entry.kind == "charge")
    refunded = sum(entry.amount_cents for entry in books.ledger if entry.kind == "refund")
    completed = sum(end == COMPLETED for end in books.ends.values())
    money = f"captured {_money(captured)} - refunded {_money(refunded)} = kept {_money(captured - refunded)}"
    parcels = f"{len(books.shipments)} shipped, {len(books.confirmations)} confirmed, {completed} orders completed"
    return [f"  money     {money}, completed orders come to {_money(owed)}", f"  parcels   {parcels}"]


def _money(cents: int) -> str:
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}{whole:,}.{rest:02}"


def _verdict_lines(mistakes: Sequence[Mistake]) -> list[str]:
    if not mistakes:
        return ["  The books balance: every cent, piece and parcel is where the sagas say, and nothing happened twice."]
    more = len(mistakes) - MISTAKES_SHOWN_MAX
    shown = [f"  OFF  {mistake}" for mistake in mistakes[:MISTAKES_SHOWN_MAX]]
    return [
        *shown,
        *([f"  ... and {more} more"] if more > 0 else []),
        f"  The books are off in {len(mistakes)} places.",
    ]
