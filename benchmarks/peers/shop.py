"""What the three services of the order saga do, for every peer: as little as for Atone, with the same data.

Owns the order and the trivial services, which count their calls. Must not know a peer. Standard library only. Called by
the apps; `order_saga` has the same for Atone.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeAlias

Data: TypeAlias = dict[str, Any]

AN_ORDER: Data = {"customer": "customer-000017", "item": "a-red-bicycle", "quantity": 2, "cents": 129_900}
calls: Counter[str] = Counter()


class NoCarrier(Exception):
    """No carrier goes there: the order can't be shipped."""


def reserve(saga_id: str, order: Data) -> Data:
    """Set goods aside."""
    calls["reserve"] += 1
    return {"id": f"reservation-{saga_id}", "item": order["item"], "quantity": order["quantity"]}


def release(reservation: Data) -> None:
    """Put them back."""
    calls["release"] += 1


def pay(saga_id: str, order: Data) -> Data:
    """Take the money."""
    calls["pay"] += 1
    return {"id": f"payment-{saga_id}", "cents": order["cents"]}


def refund(payment: Data) -> None:
    """Give it back."""
    calls["refund"] += 1


def ship(saga_id: str, reservation: Data, payment: Data, *, declined: bool) -> Data:
    """Send them; with `declined` nobody goes there."""
    calls["ship"] += 1
    if declined:
        raise NoCarrier("no carrier goes there")
    return {"id": f"shipment-{saga_id}", "reservation": reservation["id"], "payment": payment["id"]}


def books_of(sagas: int, workload: str) -> dict[str, int]:
    """Return how often each must have been called, if no call was lost or repeated."""
    undone = {"refund": sagas, "release": sagas} if workload == "compensate" else {}
    return {"reserve": sagas, "pay": sagas, "ship": sagas} | undone
