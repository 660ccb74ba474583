"""Events that come too early, for a handler that has to come after something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from atone._participant import taking
from atone.brokers.memory import MemoryBroker
from atone.choreography import Choreography, Participant, Reaction, event, reacts
from atone.definition import Retry
from atone.serving import serve
from tests.choreography.shop import Shop, eventually, message_of


@event("parcel.packed")
@dataclass(frozen=True)
class Packed:
    pass


@event("parcel.paid")
@dataclass(frozen=True)
class Paid:
    pass


@event("parcel.sent")
@dataclass(frozen=True)
class Sent:
    pass


class Post(Participant, name="post"):
    """Sends what was packed, once it is paid for; `now_or_never` does not wait."""

    @reacts(Paid, after=(Packed,), emits=(Sent,), pivot=True)
    async def send(self, ctx: Reaction[Paid]) -> Sent:
        await ctx.connection.execute(text("INSERT INTO effects VALUES (:saga, 'sent')"), {"saga": ctx.saga_id})
        return Sent()


PARCELS = Choreography("parcels", Post, starts=(Packed, Paid), completes=(Sent,), check=False)


@asynccontextmanager
async def post(folder: Path) -> AsyncIterator[Shop]:
    async with MemoryBroker(f"memory://{folder}") as broker:
        shop = Shop({"post": f"sqlite+aiosqlite:///{folder}/post.db"}, broker)
        await shop.create()
        async with serve(PARCELS, Post(), database=shop.engines["post"], broker=broker):
            yield shop
        await shop.close()


async def say(shop: Shop, value: Any, message_id: str) -> None:
    await shop.broker.publish([message_of(value, "p-1", message_id, saga="parcels")])


async def has_been_put_off(shop: Shop) -> bool:
    rows = await shop.rows("post", "SELECT deferrals FROM atone_inbox WHERE message = 'm-paid' AND is_done = 0")
    return bool(rows) and rows[0][0] > 0


def test_an_event_that_comes_too_early_waits_and_is_handled_then(tmp_path: Path) -> None:
    """Nothing of it is written while it waits; it is handled once what it comes after was heard."""

    async def main() -> None:
        async with post(tmp_path) as shop:
            await say(shop, Paid(), "m-paid")
            await eventually(lambda: has_been_put_off(shop), lambda: shop.effects("p-1"))
            assert (await shop.effects("p-1"))["post"] == []
            await say(shop, Packed(), "m-packed")

            async def sent() -> bool:
                return (await shop.effects("p-1"))["post"] == ["sent"]

            await eventually(sent, lambda: shop.rows("post", "SELECT * FROM atone_inbox"))

    asyncio.run(main())


def test_an_event_whose_turn_never_comes_is_set_aside_with_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not go round for ever."""
    monkeypatch.setattr(taking, "PATIENCE", Retry(attempts=3, initial=0.0))

    async def main() -> None:
        async with post(tmp_path) as shop:
            await say(shop, Paid(), "m-paid")

            async def parked() -> bool:
                return bool(await shop.broker.parked("parcels.post"))

            await eventually(parked, lambda: shop.rows("post", "SELECT * FROM atone_inbox"))
            (found,) = await shop.broker.parked("parcels.post")
            assert found.reason.startswith("parcel.paid has to come after parcel.packed, which has not come")
            assert (await shop.effects("p-1"))["post"] == []

    asyncio.run(main())
