"""Starting a saga again where its payloads are encrypted: the codec's words come through."""

from __future__ import annotations

from pathlib import Path

import pytest

from atone import Completed, Orchestrator
from atone.codec import Codec
from atone.errors import ConflictingStart, PayloadError
from tests.runtime.world import Order, PlaceOrder, World, limits, run, sqlite


class Mirror:
    """An encryption that a test can see through."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        return self.mark + data[::-1]

    def decrypt(self, data: bytes, context: bytes) -> bytes:
        if not data.startswith(self.mark):
            raise ValueError("another key")
        return data[len(self.mark) :][::-1]


def orchestrator(folder: Path, codec: Codec) -> Orchestrator:
    return Orchestrator(sqlite(folder), sagas=[PlaceOrder(World())], codec=codec, limits=limits())


def test_a_start_of_an_encrypted_saga_without_its_key_says_what_is_missing(tmp_path: Path) -> None:
    """Nobody without the key can say whether the input is another one; with it they can."""

    async def main() -> None:
        sealed = Codec(encryption=Mirror(b"one"))
        async with orchestrator(tmp_path, sealed) as atone:
            await atone.execute(PlaceOrder, Order(), saga_id="1", timeout=20)
        async with orchestrator(tmp_path, Codec()) as atone:
            with pytest.raises(PayloadError, match="has no key"):
                await atone.start(PlaceOrder, Order(), saga_id="1")
        async with orchestrator(tmp_path, Codec(encryption=Mirror(b"two"))) as atone:
            with pytest.raises(PayloadError, match="another key"):
                await atone.start(PlaceOrder, Order(), saga_id="1")
        async with orchestrator(tmp_path, sealed) as atone:
            with pytest.raises(ConflictingStart):
                await atone.start(PlaceOrder, Order(total=1), saga_id="1")
            assert isinstance(await atone.execute(PlaceOrder, Order(), saga_id="1", timeout=20), Completed)

    run(main())
