"""Faults on purpose: what networks and services do to callers, drawn from a seed.

Owns which request gets which fault, and how a reply is lost on the wire. The draw depends on the seed, the key and how
often the key has come, so the same run meets the same faults. Business rules (declined cards, empty shelves) are not
faults and are not here. Used by `service` around every request that changes something.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, cast

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_CUT = "orders.cut_connection"


class Fault(Enum):
    """What can go wrong between a caller and a participant that is right in itself."""

    UNAVAILABLE = "unavailable"  # 503, no effect
    LATE = "late"  # the effect comes after the caller has given up
    SLOW = "slow"  # the effect comes at once, the reply after the caller has given up
    LOST = "lost"  # the effect comes, the reply never does


@dataclass(frozen=True, slots=True)
class Rates:
    """The share of requests that meet each fault, from 0 to 1, and how long slow is."""

    unavailable: float = 0.04
    late: float = 0.03
    slow: float = 0.03
    lost: float = 0.04
    slow_seconds: float = 1.5

    @classmethod
    def parse(cls, text: str) -> Rates:
        """Read "lost=0.1,slow=0"; what is not named keeps its default. Raises ValueError for anything else."""
        pairs = (part.partition("=") for part in text.split(",") if part.strip())
        values = {name.strip(): float(value) for name, _, value in pairs}
        known = {field.name for field in fields(cls)}
        if unknown := values.keys() - known:
            raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
        rates = cls(**values)
        if min(asdict(rates).values()) < 0 or sum(rates.shares()) > 1:
            raise ValueError("fault rates are shares from 0 to 1 and add up to 1 at most")
        return rates

    def shares(self) -> tuple[float, ...]:
        """Return one share per member of Fault, in that order."""
        return (self.unavailable, self.late, self.slow, self.lost)

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in asdict(self).items())


NO_FAULTS = Rates(unavailable=0, late=0, slow=0, lost=0)


class Faults:
    """Decides about each request, and carries the decision out."""

    def __init__(self, rates: Rates, seed: int) -> None:
        self._rates, self._seed = rates, seed
        self._arrivals: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        """How often each fault was met since the service started."""

    def draw(self, key: str) -> Fault | None:
        """Return the fault that this arrival of the key meets, if any; the next arrival gets another draw."""
        self._arrivals[key] += 1
        point = _point(f"{self._seed}/{key}/{self._arrivals[key]}")
        for fault, share in zip(Fault, self._rates.shares(), strict=True):
            if point < share:
                self.met[fault.value] += 1
                return fault
            point -= share
        return None

    async def around(self, key: str, answer: Callable[[], Awaitable[Response]]) -> Response:
        """Answer, or do so with the fault that was drawn."""
        match self.draw(key):
            case Fault.UNAVAILABLE:
                return JSONResponse({"error": "unavailable"}, 503)
            case Fault.LATE:
                await asyncio.sleep(self._rates.slow_seconds)
                return await answer()
            case Fault.SLOW:
                response = await answer()
                await asyncio.sleep(self._rates.slow_seconds)
                return response
            case Fault.LOST:
                await answer()
                return LostReply()
            case None:
                return await answer()


def _point(text: str) -> float:
    """Return a number from 0 up to 1 that depends on the text only, in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]) / 2**56


class LostReply(Response):
    """Cuts the connection without a byte of reply; the caller can't know whether anything happened."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_CUT]()
        # The server must see the cut before this returns, or it would answer with a 500 of its own.
        while (await receive())["type"] != "http.disconnect":
            pass


class CuttableProtocol(H11Protocol):
    """HTTP as usual, with one way more to end a request: a handler may cut its connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        super().connection_made(transport)
        app = cast("ASGIApp", self.app)

        async def app_with_cut(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, _CUT: transport.abort}, receive, send)

        self.app = cast("Any", app_with_cut)
