"""What the checker of histories found, kept as the shortest way to it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atone.store import Delivered
from atone.stores import _postgres_requests
from atone.testing._subject import Lab, birth_of, request_for
from tests.servers.postgres import Bench

# It does not run out, whatever time it is by the clock that the schema shares with other tests.
_PASSED_BY = """
INSERT INTO early_events (tenant, name, saga_id, request_id, commit_id, entries, expires_at)
VALUES ('acme', 'Order', 'one', 'event-1', '\\x01', '["first"]', 9e15)
"""


def test_an_event_sent_again_beside_its_sagas_birth_is_a_duplicate(postgres_bench: Bench) -> None:
    """KEPT, then APPENDED for the same id: the second copy was taken and the first, which had been kept, dropped.

    It came between the commit of the birth and the statement after it that takes the early events along.
    """
    place = postgres_bench.shared_place()

    async def main() -> None:
        subject = place.subject()
        async with subject.store:
            lab = Lab(subject)
            key = await lab.born(lab.poster, saga_id="one")
            place.sql(_PASSED_BY)  # as the birth leaves it for a moment
            again = request_for("one", request_id="event-1", entries=b'["second"]', keep_seconds=60.0)
            assert await subject.store.deliver(again) is Delivered.DUPLICATE
            assert [row.entries for row in await lab.rows(key)] == [birth_of(key).entries, b'["first"]']

    asyncio.run(main())


def test_an_event_that_is_kept_for_a_saga_that_is_over_holds_up_nobody(postgres_bench: Bench) -> None:
    """A final saga takes no event along, so whoever sends it again is told that the saga is over, at once."""
    place = postgres_bench.shared_place()

    async def main() -> None:
        subject = place.subject()
        async with subject.store:
            lab = Lab(subject)
            await lab.born(lab.poster, saga_id="one", status="completed", owned=False)
            place.sql(_PASSED_BY)
            again = request_for("one", request_id="event-1", keep_seconds=60.0)
            assert await subject.store.deliver(again) is Delivered.FINAL

    asyncio.run(main())


@pytest.mark.parametrize("has_another", [True, False])
def test_an_event_that_passes_its_sagas_birth_is_kept_only_once(
    has_another: bool, postgres_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two were KEPT under one id: the birth had taken the first along, which left room for the second.

    It saw no saga; then the saga was born, with a copy of it or without one; then it was kept.
    """
    place, keep = postgres_bench.shared_place(), _postgres_requests.keep_early
    event = request_for("one", request_id="event-1", keep_seconds=60.0)

    async def main() -> None:
        subject = place.subject()
        async with subject.store:
            lab = Lab(subject)

            async def kept_late(*given: Any) -> bool:
                monkeypatch.setattr(_postgres_requests, "keep_early", keep)
                if has_another:
                    another = event._replace(commit_id=b"another")
                    assert await subject.store.deliver(another) is Delivered.KEPT
                await lab.born(lab.poster, b"a key", saga_id="one")
                return await keep(*given)

            monkeypatch.setattr(_postgres_requests, "keep_early", kept_late)
            wanted = Delivered.DUPLICATE if has_another else Delivered.KEPT
            assert await subject.store.deliver(event) is wanted
            _, only = await lab.rows(b"a key")
            assert only.commit_id == (b"another" if has_another else event.commit_id)
            assert place.sql("SELECT count(*) FROM early_events") == [(0,)]

    asyncio.run(main())
