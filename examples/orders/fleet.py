"""What a worker of the fleet runs: `ATONE_STORE=postgresql://... atone worker examples.orders.fleet:sagas`.

Owns the clients of one worker: they are made in its event loop, and closed when its last saga has been handed back.
Where the services are stands in the environment: ORDERS_INVENTORY, ORDERS_PAYMENTS, ORDERS_SHIPPING.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Mapping

import httpx

from examples.orders.children import when_stdin_closes
from examples.orders.clients import Inventory, Payments, Shipping
from examples.orders.saga import PlaceOrder

LEASH = "ORDERS_LEASH"
# A call that takes longer is given up here; whether it happened, only the participant knows.
CALL_SECONDS = 1.0
_STOP_SECONDS = 10.0


async def sagas() -> AsyncGenerator[list[PlaceOrder], None]:
    """Yield the sagas for as long as the worker runs."""
    if LEASH in os.environ:  # the demo's workers go when the demo goes, however it ends
        when_stdin_closes(lambda: os.kill(os.getpid(), signal.SIGTERM), exit_after_seconds=_STOP_SECONDS)
    async with httpx.AsyncClient(timeout=CALL_SECONDS) as http:
        yield [place_order(http, os.environ)]


def place_order(http: httpx.AsyncClient, addresses: Mapping[str, str]) -> PlaceOrder:
    """Return the saga with its clients."""
    return PlaceOrder(
        Inventory(http, addresses["ORDERS_INVENTORY"]),
        Payments(http, addresses["ORDERS_PAYMENTS"]),
        Shipping(http, addresses["ORDERS_SHIPPING"]),
    )
