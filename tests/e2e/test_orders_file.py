"""The orders file of the example: every form of bad line is named with its number, and the rest goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.orders.make_orders import main as make_orders
from examples.orders.order_file import LINE_BYTES_MAX, OrderFile, read_orders

SHIPPED_FILE = Path(__file__).parents[2] / "examples" / "orders" / "orders.jsonl"


def order_line(**changes: Any) -> bytes:
    """Return a good line, but for the changes."""
    order: dict[str, Any] = {
        "id": "1",
        "customer": "Ada",
        "card": "4000000000001234",
        "lines": [{"sku": "CUP", "quantity": 2, "price_cents": 500}],
        "total_cents": 1000,
    }
    order.update(changes)
    return json.dumps({name: value for name, value in order.items() if value is not ...}).encode() + b"\n"


def read(tmp_path: Path, content: bytes) -> OrderFile:
    """Read a file with this content."""
    path = tmp_path / "orders.jsonl"
    path.write_bytes(content)
    return read_orders(path)


BAD_LINES = {
    "not JSON": (b"one cup, please\n", "not JSON"),
    "half a line": (b'{"id": "1", "customer"\n', "not JSON"),
    "not UTF-8": (order_line(customer="Ada").replace(b"Ada", b"\xff\xfe"), "not JSON"),
    "not an object": (b'["1"]\n', "Expected `object`"),
    "a field is missing": (order_line(customer=...), "missing required field `customer`"),
    "a field has the wrong type": (order_line(total_cents="1000"), "Expected `int`, got `str` - at `$.total_cents`"),
    "money with a fraction": (order_line(total_cents=1000.5), "Expected `int`, got `float`"),
    "true is no number": (order_line(lines=[{"sku": "CUP", "quantity": True, "price_cents": 1000}]), "got `bool`"),
    "a negative quantity": (
        order_line(lines=[{"sku": "CUP", "quantity": -2, "price_cents": -500}]),
        "Expected `int` >= 1 - at `$.lines[0].quantity`",
    ),
    "a negative price": (
        order_line(lines=[{"sku": "CUP", "quantity": 2, "price_cents": -500}], total_cents=-1000),
        "at `$.lines[0].price_cents`",
    ),
    "a number beyond all stock": (
        order_line(lines=[{"sku": "CUP", "quantity": 10**30, "price_cents": 1}], total_cents=10**30),
        "$.lines[0].quantity",
    ),
    "no lines": (order_line(lines=[], total_cents=0), "length >= 1 - at `$.lines`"),
    "an id that could not stand in a header": (order_line(id="1\r\nX: y"), "at `$.id`"),
    "an id that ends in a line break": (order_line(id="1\n"), "at `$.id`"),
    "a card that is none": (order_line(card="gold"), "at `$.card`"),
    "a total that its lines do not add up to": (
        order_line(total_cents=999),
        "total_cents is 999, its lines add up to 1000",
    ),
    "an article twice": (
        order_line(lines=[{"sku": "CUP", "quantity": 1, "price_cents": 500}] * 2),
        "CUP stands in two lines of the order",
    ),
    "a line too long": (order_line(note="x" * LINE_BYTES_MAX), f"longer than {LINE_BYTES_MAX} bytes"),
    "a line much too long": (order_line(note="x" * 5 * LINE_BYTES_MAX), f"longer than {LINE_BYTES_MAX} bytes"),
    "nested too deeply": (order_line()[:-2] + b', "x": ' + b"[" * 60_000 + b"\n", "nested too deeply"),
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_reported_with_its_number_and_the_rest_goes_on(tmp_path: Path, line: bytes, reason: str) -> None:
    """The lines before and after a bad one are orders as ever; the report says which line and why."""
    file = read(tmp_path, order_line(id="before") + line + order_line(id="after"))
    assert [order.id for order in file.orders] == ["before", "after"]
    assert [bad.number for bad in file.bad_lines] == [2]
    assert reason in file.bad_lines[0].reason


def test_a_second_order_with_the_same_id_is_reported_and_the_first_one_counts(tmp_path: Path) -> None:
    """The report names the line where the id was seen first."""
    file = read(tmp_path, order_line(customer="Ada") + order_line(id="2") + order_line(customer="Bo"))
    assert [(order.id, order.customer) for order in file.orders] == [("1", "Ada"), ("2", "Ada")]
    assert [str(bad) for bad in file.bad_lines] == ["line 3: order 1 stands in line 1 already"]


def test_an_id_first_seen_in_a_bad_line_is_still_free(tmp_path: Path) -> None:
    """A line that was refused takes no id away from a good one."""
    file = read(tmp_path, order_line(total_cents=1) + order_line())
    assert [order.id for order in file.orders] == ["1"]
    assert [bad.number for bad in file.bad_lines] == [1]


def test_what_editors_leave_behind_is_no_mistake(tmp_path: Path) -> None:
    """Blank lines, Windows line ends, a byte order mark and a missing last line end are all read over."""
    content = b"\xef\xbb\xbf" + order_line(id="1").replace(b"\n", b"\r\n") + b"\n  \n" + order_line(id="2").rstrip()
    file = read(tmp_path, content)
    assert [order.id for order in file.orders] == ["1", "2"]
    assert file.bad_lines == ()


def test_blank_lines_count_in_the_numbers(tmp_path: Path) -> None:
    """A reported number is the one an editor shows."""
    assert [bad.number for bad in read(tmp_path, b"\n\nno\n").bad_lines] == [3]


def test_a_field_more_is_no_mistake(tmp_path: Path) -> None:
    """Files from elsewhere may carry more than the example needs."""
    assert len(read(tmp_path, order_line(note="ring twice")).orders) == 1


def test_the_file_that_ships_has_200_good_orders_and_is_what_the_script_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The committed data can be made again, byte for byte."""
    file = read_orders(SHIPPED_FILE)
    assert (len(file.orders), file.bad_lines) == (200, ())
    again = tmp_path / "again.jsonl"
    monkeypatch.setattr("sys.argv", ["make_orders", str(again)])
    make_orders()
    assert again.read_bytes() == SHIPPED_FILE.read_bytes()
