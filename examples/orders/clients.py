"""The orchestrator's side of the wire: one client per participant.

Owns what an HTTP answer means to a saga. A definite "no" (402 or 409 with a reason) becomes `Reject`; every other
trouble (time-out, lost connection, 5xx) stays the exception it is, because then nobody knows whether it happened.
Decides nothing else: no retry, no state. Called by `saga`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias, TypeVar

import httpx
import msgspec

from atone import Reject
from examples.orders.domain import Line, Payment, Reservation, Shipment

T = TypeVar("T")

# Who asks, as `call_headers` names it: the key of this operation, the saga that it belongs to, the trace.
Caller: TypeAlias = Mapping[str, str]


class NoDefiniteAnswer(Exception):
    """The participant answered, but neither yes nor no; whether it happened is unknown."""


class _Participant:
    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http, self._url = http, url

    async def _ask(self, path: str, body: Mapping[str, object], caller: Caller, answer: type[T]) -> T:
        response = await self._http.post(self._url + path, json=body, headers=caller)
        if response.is_success:
            return msgspec.json.decode(response.content, type=answer)
        if response.status_code in {402, 409} and "rejected" in (said := response.json()):
            raise Reject(str(said["rejected"]))
        raise NoDefiniteAnswer(f"{path} answered {response.status_code}: {response.text[:200]}")

    async def _undo(self, path: str, action_key: str, caller: Caller) -> None:
        await self._ask(path, {"action_key": action_key}, caller, dict)

    async def _find(self, action_key: str, answer: type[T]) -> T | None:
        response = await self._http.get(self._url + "/calls", params={"key": action_key})
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return msgspec.convert(found["reply"], type=answer) if found["landed"] else None


class Inventory(_Participant):
    """Sets pieces aside, and puts them back."""

    async def reserve(self, order_id: str, lines: tuple[Line, ...], caller: Caller) -> Reservation:
        """Set every line aside; raise Reject when an article is short."""
        pieces = [{"sku": line.sku, "quantity": line.quantity} for line in lines]
        return await self._ask("/reservations", {"order_id": order_id, "lines": pieces}, caller, Reservation)

    async def release(self, reservation_key: str, caller: Caller) -> None:
        """Put back what was set aside under this key, and refuse it from now on."""
        await self._undo("/reservations/release", reservation_key, caller)


class Payments(_Participant):
    """Captures money, and gives it back."""

    async def charge(self, order_id: str, card: str, amount_cents: int, caller: Caller) -> Payment:
        """Capture the money; raise Reject when the card is declined."""
        body = {"order_id": order_id, "card": card, "amount_cents": amount_cents}
        return await self._ask("/charges", body, caller, Payment)

    async def refund(self, charge_key: str, caller: Caller) -> None:
        """Give back what was captured under this key, and refuse it from now on."""
        await self._undo("/charges/refund", charge_key, caller)

    async def find(self, charge_key: str) -> Payment | None:
        """Return what the charge under this key became; None if it has not happened."""
        return await self._find(charge_key, Payment)


class Shipping(_Participant):
    """Sends parcels, and tells customers so."""

    async def create(self, order_id: str, reservation: Reservation, payment: Payment, caller: Caller) -> Shipment:
        """Send the parcel."""
        body = {"order_id": order_id, **asdict(reservation), **asdict(payment)}
        return await self._ask("/shipments", body, caller, Shipment)

    async def confirm(self, order_id: str, shipment: Shipment, customer: str, caller: Caller) -> None:
        """Tell the customer that the parcel is on its way."""
        await self._ask(
            "/confirmations", {"order_id": order_id, **asdict(shipment), "customer": customer}, caller, dict
        )
