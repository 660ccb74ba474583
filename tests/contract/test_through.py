"""A store that passes everything on is as good as the one behind it, and has beside the port what that one has."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atone.store import Counting, Hint, Hinting, Store
from atone.stores.memory import MemoryStore
from atone.stores.postgres import PostgresStore
from atone.testing.contracts import STORE_CHECKS, Check, Subject
from atone.testing.through import Through
from benchmarks.recording import WatchedStore
from tests.contract.insistent import InsistentStore
from tests.contract.test_stores import memory_subject
from tests.crash.witness import Notes, Witness
from tests.runtime.faulty_store import FaultyStore

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
WRAPPERS: list[Callable[[Store], Any]] = [
    Through,
    WatchedStore,
    FaultyStore,
    lambda inner: Witness(inner, Notes(Path(os.devnull))),
    lambda inner: InsistentStore(inner, lambda: 0, lambda commit_id: False),
]


class Bare(Through):
    """The port and nothing else."""

    def __init__(self) -> None:
        self.inner = MemoryStore(allow_volatile=True)


@pytest.mark.parametrize("check", STORE_CHECKS, ids=str)
def test_what_passes_through_is_what_the_store_says(check: Check, tmp_path: Path) -> None:
    """The whole contract holds, so no argument and no answer is lost on the way."""

    def subject() -> Subject:
        there = memory_subject(tmp_path)
        return replace(there, store=Through(there.store))

    asyncio.run(check(subject))


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_whoever_wraps_a_store_hears_its_hints_and_counts(wrap: Callable[[Store], Any]) -> None:
    """A wrapper that hid them would turn them off, and every run around it would show polling alone."""
    inner = PostgresStore(NOWHERE)
    heard: list[Hint] = []
    inner.on_hint = lambda callback: callback(Hint.DUE)
    wrapped = wrap(inner)
    assert isinstance(wrapped, Hinting)
    assert isinstance(wrapped, Counting)
    wrapped.on_hint(heard.append)
    assert heard == [Hint.DUE]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_store_without_hints_has_none_when_it_is_wrapped(wrap: Callable[[Store], Any]) -> None:
    """Who asks must not be told of what nobody says."""
    wrapped = wrap(Bare())
    assert not isinstance(wrapped, Hinting)
    assert not isinstance(wrapped, Counting)


def test_no_method_of_the_port_is_left_out() -> None:
    """One that is new has to be passed on as well."""
    port = {name for name, _ in inspect.getmembers(Store, inspect.isfunction) if name != "__init__"}
    own = {name for name in port if not name.startswith("_") or name in ("__aenter__", "__aexit__")}
    assert own <= vars(Through).keys()
