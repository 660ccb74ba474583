"""Reads orders from a JSON Lines file, one order a line.

Owns the rules a line must keep. A bad line is reported with its number and the reason; the rest goes on.
Never holds more than one line of text in memory. Called by the demo and by the orchestrator process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from examples.orders.domain import Order

LINE_BYTES_MAX = 64 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not an order, and why."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.reason}"


@dataclass(frozen=True, slots=True)
class OrderFile:
    """The good orders of a file in their order, and its bad lines."""

    orders: tuple[Order, ...]
    bad_lines: tuple[BadLine, ...]


def read_orders(path: Path) -> OrderFile:
    """Read every order of the file; raise OSError when there is no such file to read."""
    orders: list[Order] = []
    bad_lines: list[BadLine] = []
    first_line_of: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in _lines(file):
            order, reason = _parse(line)
            if order is not None and order.id in first_line_of:
                reason = f"order {order.id} stands in line {first_line_of[order.id]} already"
            if order is None or reason:
                bad_lines.append(BadLine(number, reason))
                continue
            first_line_of[order.id] = number
            orders.append(order)
    return OrderFile(tuple(orders), tuple(bad_lines))


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number, line) for every line that is not blank; None stands for a line over the limit."""
    number = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
            _skip_rest_of_line(file)
            yield number, None
            continue
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.strip():
            yield number, line


def _skip_rest_of_line(file: BinaryIO) -> None:
    while (piece := file.readline(LINE_BYTES_MAX)) and not piece.endswith(b"\n"):
        pass


_decoder = msgspec.json.Decoder(Order)


def _parse(line: bytes | None) -> tuple[Order | None, str]:
    if line is None:
        return None, f"longer than {LINE_BYTES_MAX} bytes"
    try:
        order = _decoder.decode(line)
    except msgspec.ValidationError as error:
        return None, str(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return None, f"not JSON: {error}"
    except RecursionError:
        return None, "nested too deeply"
    return order, _disagreement(order)


def _disagreement(order: Order) -> str:
    """Say what the fields, each right by itself, get wrong together; empty when they agree."""
    skus = [line.sku for line in order.lines]
    twice = next((sku for sku in skus if skus.count(sku) > 1), None)
    if twice is not None:
        return f"{twice} stands in two lines of the order; add them up"
    total_cents = sum(line.quantity * line.price_cents for line in order.lines)
    if total_cents != order.total_cents:
        return f"total_cents is {order.total_cents}, its lines add up to {total_cents}"
    return ""
