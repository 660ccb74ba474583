"""Memory, SQLite and PostgreSQL answer the same calls alike, and as a model of the port says; broken stores don't."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from atone.store import Marked
from atone.stores._memory_views import MemoryViews
from atone.stores.memory import MemoryStore
from tests.contract import broken_stores as broken
from tests.contract.differential import found_out, run
from tests.contract.port_model import Disagreement, check_choice
from tests.contract.twins import MemoryBed, PostgresBed, SqliteBed, opened
from tests.servers.postgres import Bench


@pytest.mark.timeout(900)  # a machine that is busy with other tests is slow at this
def test_three_stores_and_the_model_of_the_port_agree(postgres_bench: Bench, tmp_path: Path) -> None:
    """Whatever is called, in whatever order, all answers are the same and as the port says; always the same calls."""
    stores = (MemoryBed(), SqliteBed(tmp_path), PostgresBed(postgres_bench))
    with asyncio.Runner() as runner, opened(runner, *stores) as beds:
        run(beds, runner, examples=150, number=None)


class OlderMarksWin(MemoryStore):
    """What was made of fewer events takes the place of what was made of more."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

        class Views(MemoryViews):
            async def mark(self, marks: Sequence[Marked]) -> None:
                for mark in marks:
                    if mark.key in self._hot:
                        self._hot[mark.key] = self._hot[mark.key][0], 0
                await super().mark(marks)

        views, self.views = self.views, Views(self._lock, self._plans, self.views._fits)
        assert type(views) is MemoryViews


# One of each kind of rule; `python -m tests.contract.differential --broken` tries them all.
SOME_BROKEN = (
    broken.StaleTurnsLand,
    broken.AnybodyWrites,
    broken.ResendsAreNotKnown,
    broken.OneBadTurnSpoilsTheBatch,
    broken.LeasesOnlyEndByDeclaration,
    broken.TheDeadMayRenew,
    broken.TakeOverIsForgotten,
    broken.PagesHaveNoEnd,
    broken.RequestsComeTwice,
    broken.EarlyEventsAreDropped,
    broken.ResendsPostAgain,
    broken.ClaimsHoldOneRowAndNotItsKey,
    OlderMarksWin,
)


@pytest.mark.parametrize("kind", SOME_BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_store_is_found_out(kind: type[MemoryStore]) -> None:
    """The calls reach the rule that is taken out, and the model misses it."""
    assert found_out(MemoryBed(kind), examples=300) is not None


def test_a_broken_start_in_a_transaction_is_found_out(tmp_path: Path) -> None:
    """In SQL too."""
    assert found_out(SqliteBed(tmp_path, broken.StartsPostNothing), examples=300) is not None


def test_a_sound_store_is_not_found_out() -> None:
    """What is complained about above is the fault alone."""
    assert found_out(MemoryBed(), examples=50) is None


ORDER, REFUND = ("Order", 1, "hash"), ("Refund", 1, "hash")
DUE = {b"1": ORDER, b"2": ORDER, b"3": ORDER, b"4": REFUND}


@pytest.mark.parametrize(
    ("found", "room", "bounds"),
    [
        ([b"1", b"4"], 2, {}),
        ([b"3", b"4"], 2, {}),
        ([b"1", b"2", b"4"], 3, {}),
        ([b"2"], 1, {}),
        ([b"1", b"2", b"3", b"4"], 9, {}),
        ([b"1", b"4"], 9, {"Order": 1}),
        ([], 0, {}),
    ],
)
def test_a_claim_may_choose_among_what_is_due(found: list[bytes], room: int, bounds: dict[str, int]) -> None:
    """Which of a definition's sagas, and which definition has the odd one, is the store's choice."""
    check_choice(found, DUE, room, bounds)


@pytest.mark.parametrize(
    ("found", "room", "bounds"),
    [
        ([b"1", b"1"], 2, {}),
        ([b"5"], 1, {}),
        ([b"1", b"4"], 1, {}),
        ([b"1", b"2"], 3, {}),
        ([b"1", b"2", b"3"], 3, {}),
        ([b"1", b"2", b"4"], 9, {"Order": 1}),
        ([b"4"], 9, {"Order": 1}),
    ],
    ids=["twice", "not due", "too many", "too few", "unfair", "above the bound", "below the bound"],
)
def test_a_claim_may_not_choose_anything(found: list[bytes], room: int, bounds: dict[str, int]) -> None:
    """What is not due, what is too much, too little or unfair is complained about."""
    with pytest.raises(Disagreement):
        check_choice(found, DUE, room, bounds)
