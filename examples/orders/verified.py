"""The order saga, verified: its real services in this process, behind a network that loses, repeats and delays calls.

Owns how the services are put together without sockets and files, and what of their books counts. The rules of the books
themselves are in `books`. Run as `python -m examples.orders.verified`; the suite does the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from atone.testing import Report, crossing, verify
from examples.orders import inventory, payments, shipping
from examples.orders.clients import Inventory, Payments, Shipping
from examples.orders.domain import Line, Order
from examples.orders.faults import NO_FAULTS, Faults
from examples.orders.participant import Participant
from examples.orders.saga import PlaceOrder
from examples.orders.service import Action, build_app

IN_MEMORY = Path(":memory:")
STOCK = "INSERT INTO stock (sku, opening, on_hand) VALUES ('CUP', 10, 10), ('RUG', 1, 1);"
CUP, RUG = Line("CUP", 2, 950), Line("RUG", 1, 20_000)
ORDER = Order("7", "Ann", "4111111111111111", (CUP, RUG), 21_900)

SERVICES: tuple[tuple[str, str, Sequence[Action[Any]]], ...] = (
    ("inventory", inventory.SCHEMA + STOCK, inventory.ACTIONS),
    ("payments", payments.SCHEMA, payments.ACTIONS),
    ("shipping", shipping.SCHEMA, shipping.ACTIONS),
)
BOOKS = {
    "cups and rugs": ("inventory", "SELECT sku, on_hand FROM stock ORDER BY sku"),
    "cents": ("payments", "SELECT sum(CASE kind WHEN 'charge' THEN amount_cents ELSE -amount_cents END) FROM ledger"),
    "parcels": ("shipping", "SELECT order_id FROM shipments"),
    "letters": ("shipping", "SELECT order_id FROM confirmations"),
}


class Network(httpx.AsyncBaseTransport):
    """One service, without a socket: each request crosses the network of the running verification."""

    def __init__(self, app: Any) -> None:
        self._service = httpx.ASGITransport(app)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        what = f"{request.method} {request.url.path}"
        return await crossing(what, lambda: self._service.handle_async_request(request))


class Services:
    """The three services with their databases in memory, and one client that reaches them."""

    def __init__(self) -> None:
        self.participants = {name: Participant(IN_MEMORY, schema) for name, schema, _ in SERVICES}
        apps = {
            name: build_app(self.participants[name], Faults(NO_FAULTS, 1), actions) for name, _, actions in SERVICES
        }
        self.http = httpx.AsyncClient(mounts={f"http://{name}": Network(app) for name, app in apps.items()})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.http.aclose()
        for participant in self.participants.values():
            participant.__exit__(None, None, None)

    def saga(self) -> PlaceOrder:
        """Return the saga, on clients of these services."""
        http = self.http
        return PlaceOrder(
            Inventory(http, "http://inventory"), Payments(http, "http://payments"), Shipping(http, "http://shipping")
        )

    def books(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return what counts in the end; nothing captured and all given back are the same."""
        found = {what: self.participants[name].rows(query) for what, (name, query) in BOOKS.items()}
        return found | {"cents": [(found["cents"][0][0] or 0,)]}


def verified(helper: Callable[..., Report] = verify, order: Order = ORDER, **options: Any) -> Report:
    """Run the saga through all that can happen to it."""
    return helper(Services.saga, order, participants=Services, ledger=Services.books, **options)


def main() -> None:
    """Print what was covered and found."""
    logging.disable(logging.CRITICAL)
    print(verified())


if __name__ == "__main__":
    main()
