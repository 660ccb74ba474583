"""Start, event, cancel and get of one saga look as if done one after the other, whatever goes wrong beneath."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.linearizability.planted import PLANTED, Lying
from tests.linearizability.sessions import Figures, StoreFarm, lies_found, record_and_check


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Leave out what the faults make Atone say."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# Odd sessions lose one orchestrator for good in the middle.
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "sessions"), [("memory", range(1, 7)), ("sqlite", range(1, 4)), ("postgres", (1, 2, 4))]
)
def test_histories_are_linearizable(kind: str, sessions: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Six clients over three orchestrators and, where there is a server or a file, another process."""
    bench = request.getfixturevalue("postgres_bench") if kind == "postgres" else None
    figures = Figures()
    with ExitStack() as stack:
        farm = StoreFarm(tmp_path, stack, bench)
        for number in sessions:
            asyncio.run(record_and_check(farm, kind, number, figures))
    assert not figures.unexplained, "\n\n".join(figures.unexplained)
    assert figures.histories == 25 * len(sessions)
    assert figures.calls > 10 * figures.histories  # what had no chance to be wrong proves nothing


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.__name__)
def test_a_store_that_lies_is_found_out(kind: type[Lying]) -> None:
    """Some history on it has no explanation."""
    wrong, _ = asyncio.run(lies_found(kind, 1000))
    assert wrong
