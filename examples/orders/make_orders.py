"""Writes the orders file that ships with the example: `python -m examples.orders.make_orders FILE`.

Owns nothing at run time: the file it wrote is committed, so that everybody runs the same orders.
The same seed writes the same bytes.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import msgspec

from examples.orders.domain import Line, Order

_ARTICLES_CENTS = {
    "BOWL-OAK": 3450,
    "CANDLE-3": 1299,
    "CHAIR-ASH": 18900,
    "CLOCK-WALL": 7995,
    "CUP-BLUE": 1150,
    "CUSHION-M": 2999,
    "FRAME-A4": 1875,
    "HOOK-SET": 899,
    "JUG-GLASS": 2640,
    "LAMP-DESK": 8450,
    "MIRROR-60": 11200,
    "PLANT-FIG": 4599,
    "RUG-JUTE": 13950,
    "SHELF-PINE": 9700,
    "TRAY-TIN": 1780,
    "VASE-TALL": 5225,
}
_CUSTOMERS = ("Ada", "Bo", "Chidi", "Dilara", "Emre", "Femke", "Goran", "Hana", "Ines", "Jun", "Kofi", "Lena")
_DECLINED_SHARE = 0.07


def make_order(number: int, chance: random.Random) -> Order:
    """Make one order; a few have a card that is declined."""
    skus = chance.sample(sorted(_ARTICLES_CENTS), chance.choice((1, 1, 2, 2, 3, 4)))
    pieces = [chance.choice((1, 1, 1, 2, 3)) for _ in skus]
    lines = tuple(
        Line(sku=sku, quantity=quantity, price_cents=_ARTICLES_CENTS[sku])
        for sku, quantity in zip(skus, pieces, strict=True)
    )
    last_four = "0002" if chance.random() < _DECLINED_SHARE else f"{chance.randint(1000, 9999)}"
    return Order(
        id=str(number),
        customer=chance.choice(_CUSTOMERS),
        card=f"400000{chance.randint(0, 999_999):06}{last_four}",
        lines=lines,
        total_cents=sum(line.quantity * line.price_cents for line in lines),
    )


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description="Write orders as JSON Lines.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    settings = parser.parse_args()
    chance = random.Random(settings.seed)
    orders = [make_order(1001 + number, chance) for number in range(settings.orders)]
    settings.file.write_bytes(b"".join(msgspec.json.encode(order) + b"\n" for order in orders))


if __name__ == "__main__":
    main()
