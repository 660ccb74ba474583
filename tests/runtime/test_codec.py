"""The codec: what is a payload, what survives the trip, what is refused and in which words."""

from __future__ import annotations

import collections
import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atone.codec import Codec, same_json
from atone.errors import DefinitionError, PayloadError
from tests.runtime.payloads import (
    SCHEMAS,
    SECRET,
    ZOO,
    Address,
    Basket,
    Box,
    CardPayment,
    Cat,
    Choosy,
    Closed,
    Colour,
    Dog,
    Growing,
    Half,
    Ignoring,
    Incomparable,
    Item,
    Late,
    Line,
    Node,
    OneStock,
    Parcel,
    Payment,
    Point,
    Sealer,
    Size,
    Stock,
    Word,
    refused,
    schema,
)


@pytest.mark.parametrize("kind", range(len(ZOO)), ids=[one.name for one, _ in SCHEMAS])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_supported_type_comes_back_equal_and_of_its_type(kind: int, data: st.DataObject) -> None:
    """A value of a supported type is valid JSON in between, and itself again at the end."""
    one, values = SCHEMAS[kind]
    value = data.draw(values)
    written = one.encode(value)
    json.loads(written)
    back = one.decode(written)
    assert back == value
    assert type(back) is type(value)
    if isinstance(value, dict):
        assert list(back) == list(value)


@settings(deadline=None)
@given(st.data(), st.binary(max_size=40))
def test_any_bytes_decode_or_are_a_payload_error(data: st.DataObject, noise: bytes) -> None:
    """Whatever stands in a row, nothing but a value or a PayloadError comes of it."""
    writer, values = data.draw(st.sampled_from(SCHEMAS))
    written = writer.encode(data.draw(values))
    cut = data.draw(st.integers(0, len(written)))
    for damaged in (noise, written[:cut], written[:cut] + noise + written[cut:]):
        reader, _ = data.draw(st.sampled_from(SCHEMAS))
        try:
            reader.decode(damaged)
        except PayloadError as error:
            assert str(error).endswith(".")  # noqa: PT017 - both ways are right


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_value_of_another_type_is_refused_or_comes_back_as_it_was(data: st.DataObject) -> None:
    """Give any value to any schema: it is either refused or the very same afterwards."""
    _, values = data.draw(st.sampled_from(SCHEMAS))
    value = data.draw(values)
    other, _ = data.draw(st.sampled_from(SCHEMAS))
    try:
        written = other.encode(value)
    except PayloadError:
        return
    assert other.decode(written) == value


@settings(deadline=None)
@given(st.datetimes(timezones=st.timezones()))
def test_a_zoned_datetime_keeps_its_instant_and_offset_or_is_refused(value: datetime) -> None:
    """JSON carries an offset in minutes and no zone name; anything that would move is refused."""
    one = schema(datetime)
    try:
        written = one.encode(value)
    except PayloadError:
        offset = value.utcoffset()
        assert offset is not None
        assert offset % timedelta(minutes=1)
        return
    back = one.decode(written)
    assert (back.replace(tzinfo=None), back.utcoffset()) == (value.replace(tzinfo=None, fold=0), value.utcoffset())


@pytest.mark.parametrize(
    ("tp", "value", "names"),
    [
        (Payment, "a str", ["Payment", "this str"]),
        (Payment, 7, ["Payment", "this int"]),
        (Payment, None, ["Payment", "this NoneType"]),
        (None, Payment("a", 1), ["None", "this Payment"]),
        (Payment, {"id": "x", "cents": 1, "captured": True}, ["a dict comes back as a Payment"]),
        (Payment, Stock("x"), ["Payment", "this Stock", "required field `id`"]),
        (Payment, Payment(id=5, cents=1), ["`str`, got `int`", "$.id"]),
        (Payment, Payment("a", True), ["`int`, got `bool`", "$.cents"]),
        (Payment, Payment("a", 1.0), ["`int`, got `float`", "$.cents"]),
        (Payment, CardPayment("a", 1), ["a CardPayment comes back as a Payment"]),
        (list[Payment], [Payment("a", 1), CardPayment("a", 1)], ["CardPayment", "$[1]"]),
        (Stock, OneStock("a", 1), ["a OneStock comes back as a Stock"]),
        (Any, (1, 2), ["a tuple comes back as a list"]),
        (Any, {"a": [1, {2}]}, ["a set comes back as a list", "$[...][1]"]),
        (Any, {1: 2}, ["a int in it"]),
        (Any, b"x", ["a bytes comes back as a str"]),
        (Any, Payment("a", 1), ["a Payment comes back as a dict"]),
        (Any, Basket(items=[]), ["a Basket comes back as a dict"]),
        (Any, math.nan, ["a float comes back as a NoneType"]),
        (Any, UUID(int=7), ["a UUID comes back as a str"]),
        (Incomparable, Incomparable(1, (2,)), ["a tuple comes back as a list", "$.more"]),
        (Ignoring, Ignoring(1, (2,)), ["a tuple comes back as a list", "$.unseen"]),
        (list[int], (1, 2), ["a tuple comes back as a list"]),
        (Sequence[int], (1, 2), ["a tuple comes back as a list"]),
        (frozenset[int], {1}, ["a set comes back as a frozenset"]),
        (Point, (1.0, 2.0), ["a tuple comes back as a Point"]),
        (dict[str, int], collections.OrderedDict(a=1), ["a OrderedDict comes back as a dict"]),
        (dict[str, int], collections.defaultdict(int, a=1), ["a defaultdict comes back as a dict"]),
        (list[Any], [Colour.RED, object()], ["a object can't be JSON in its place"]),
        (dict[str, int], {None: 1}, ["a NoneType can't be JSON in its place"]),
        (dict[str, int], {("a", 1): 1}, ["a tuple can't be JSON in its place"]),
        (Address, {"street": "s", "number": 1, "extra": 2}, ["a dict does not come back equal"]),
        (Colour, "red", ["a str comes back as a Colour"]),
        (Word, "yes", ["a str comes back as a Word"]),
        (Decimal, 5, ["a int comes back as a Decimal"]),
        (Decimal, 1.5, ["a float comes back as a Decimal"]),
        (set[Decimal], {5}, ["a int in it does not come back as it was"]),
        (dict[Decimal, int], {5: 1}, ["a int in it does not come back as it was"]),
        (UUID, str(UUID(int=7)), ["a str comes back as a UUID"]),
        (datetime, "2020-01-01T00:00:00Z", ["a str comes back as a datetime"]),
        (date, datetime(2020, 1, 1), ["date"]),  # noqa: DTZ001 - a naive one on purpose
        (Growing, Growing(1), ["a int does not come back equal", "$.count"]),
        (Cat | Dog, Stock("x"), ["this Stock"]),
        (Annotated[int, msgspec.Meta(ge=0)], -1, ["`int` >= 0"]),
    ],
)
def test_a_wrongly_typed_value_is_refused_before_it_is_journalled(tp: Any, value: Any, names: list[str]) -> None:
    """The refusal names the declared type, the value's type and the place, and no value."""
    words = refused(lambda: schema(tp).encode(value))
    assert all(name in words for name in names), words


@pytest.mark.parametrize(
    ("tp", "value", "back"),
    [
        (float, 1, 1.0),
        (str, Word.YES, "yes"),
        (int, Size.BIG, 2),
        (dict[str, int], {Word.YES: 1}, {"yes": 1}),
        (set[float], {1, 2}, {1.0, 2.0}),
        (datetime, datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), datetime(2023, 12, 31, 23, tzinfo=UTC)),
    ],
)
def test_the_differences_that_pass_are_the_documented_ones(tp: Any, value: Any, back: Any) -> None:
    """A type checker allows these, and what comes back is equal and of the declared type."""
    got = schema(tp).decode(schema(tp).encode(value))
    assert got == back
    assert type(got) is type(back)


class DriverUuid(UUID):
    """As a database driver returns them."""


def test_a_drivers_own_uuid_comes_back_as_the_plain_uuid_it_equals() -> None:
    """A subclass of a plain value type is no wrong type."""
    value = DriverUuid(int=7)
    back = schema(UUID).decode(schema(UUID).encode(value))
    assert back == value
    assert type(back) is UUID


@pytest.mark.parametrize(
    ("tp", "value", "names"),
    [
        (float, math.nan, ["NaN"]),
        (float, math.inf, ["NaN and infinity"]),
        (list[float], [1.0, -math.inf], ["$[1]"]),
        (float | None, math.nan, ["a float comes back as a NoneType"]),
        (float, 2**63 + 1, ["a int comes back as a float", "does not come back equal"]),
        pytest.param(float, 10**400, ["out of range"], id="float-10**400"),
        pytest.param(int, 10**5000, ["too many digits"], id="int-of-5001-digits"),
        (Decimal, Decimal("NaN"), ["a Decimal does not come back equal"]),
        (list[Decimal], [Decimal("NaN")], ["a Decimal does not come back equal"]),
        (Decimal, Decimal("sNaN"), ["InvalidOperation"]),
        (str, SECRET + "\ud800", ["not valid Unicode"]),
        (dict[str, int], {"\udfff": 1}, ["not valid Unicode"]),
        (
            datetime,
            datetime(2024, 1, 1, tzinfo=timezone(timedelta(seconds=7))),
            ["a datetime does not come back equal"],
        ),
        (datetime, datetime(2024, 10, 27, 2, 30, fold=1), ["a datetime does not come back equal"]),  # noqa: DTZ001
        (time, time(1, tzinfo=ZoneInfo("Europe/Berlin")), ["a time does not come back equal"]),
        (time, time(1, fold=1), ["a time does not come back equal"]),
    ],
)
def test_a_value_that_json_would_change_is_refused(tp: Any, value: Any, names: list[str]) -> None:
    """Never a silent change: NaN, lone surrogates, lost seconds of an offset, a lost fold."""
    words = refused(lambda: schema(tp).encode(value))
    assert any(name in words for name in names), words


def test_naive_datetimes_and_ints_beyond_64_bits_survive() -> None:
    """Both are legal, and neither gains a zone or loses a digit."""
    naive = datetime(2024, 2, 29, 12, 0, 0, 1)  # noqa: DTZ001 - a naive one on purpose
    assert schema(datetime).decode(schema(datetime).encode(naive)) == naive
    for number in (2**64, -(2**64), 10**4000):
        assert schema(Any).decode(schema(Any).encode([number])) == [number]


def test_negative_zero_and_the_digits_of_a_decimal_survive() -> None:
    """Equal values that print differently stay apart."""
    assert math.copysign(1, schema(float).decode(schema(float).encode(-0.0))) == -1
    assert str(schema(Decimal).decode(schema(Decimal).encode(Decimal("1.10")))) == "1.10"


def test_none_is_a_payload_where_it_is_declared() -> None:
    """A step that returns None has a result, and it is null."""
    assert schema(None).encode(None) == b"null"
    assert schema(Payment | None).decode(schema(Payment | None).encode(None)) is None


def test_a_dataclass_without_eq_is_compared_by_its_fields() -> None:
    """Its own `==` would find its copy unlike it."""
    back = schema(Incomparable).decode(schema(Incomparable).encode(Incomparable(1, [2])))
    assert (back.value, back.more) == (1, [2])


def test_a_value_that_holds_itself_is_refused() -> None:
    """Endless nesting ends as a PayloadError, not as a RecursionError."""
    ring: list[Any] = []
    ring.append(ring)
    assert "nested" in refused(lambda: schema(list[Any]).encode(ring))


def test_the_own_words_of_a_type_are_not_repeated() -> None:
    """What `__post_init__` says may hold the value, even if it sounds like the decoder."""
    words = refused(lambda: schema(list[Choosy]).decode(json.dumps([{"card": SECRET}]).encode()))
    assert "ValueError was raised - at `$[0]`" in words


@pytest.mark.parametrize(
    ("tp", "names"),
    [
        (type("Ledger", (), {}), ["Ledger is no type for JSON"]),
        (Callable[[], int], ["Callable"]),
        (list[complex], ["complex"]),
        (Iterator[int], ["Iterator"]),
        (collections.deque[int], ["deque"]),
        (dict[str, Box[range]], ["range is no type for JSON"]),
        (Payment | Line, ["more than one dataclass", "tag=True"]),
        (list[int] | set[int], ["more than one array-like"]),
        (str | datetime, ["more than one str-like"]),
        (Item | Stock, ["Item", "Stock"]),
        (dict[Payment, int], ["key", "Dataclass"]),
        (dict[tuple[int, int], int], ["key", "Tuple"]),
        (dict[None, int], ["key", "None"]),
        (Half, ["Enums must contain"]),
        ("Payment", ["Payment", "module level"]),
        (msgspec.Raw, ["not decoded"]),
        (Late, ["Absent"]),
    ],
)
def test_a_type_that_cannot_be_a_payload_is_refused_when_the_schema_is_made(tp: Any, names: list[str]) -> None:
    """A DefinitionError names the type and what to use, before any saga runs."""
    with pytest.raises(DefinitionError) as caught:
        schema(tp)
    words = str(caught.value)
    assert all(name in words for name in [*names, "Use a dataclass"]), words


def test_a_schema_is_made_once_for_a_type() -> None:
    """Also for a type that refers to itself; a type that can't be hashed gets a new one each time."""
    codec = Codec()
    assert codec.schema(Node) is codec.schema(Node)
    assert codec.schema(Literal[1]) is not codec.schema(Literal[True])
    unhashable = Annotated[int, ["a list"]]
    assert codec.schema(unhashable).decode(b"1") == 1


@pytest.mark.parametrize(
    ("tp", "data", "names"),
    [
        (Payment, b"", ["truncated"]),
        (Payment, b'{"id": "x"', ["truncated"]),
        (Payment, b'{"id": "x", "cents": 1}}', ["malformed", "byte"]),
        (Payment, b"\x00\xff", ["malformed"]),
        (Payment, b'{"id": "\xff"}', ["Unicode"]),
        (Payment, None, ["AttributeError was raised"]),
        (Payment, '{"id": "x", "cents": 1}', ["TypeError was raised"]),
        (Payment, b'{"id": "x"}', ["required field `cents`"]),
        (Payment, b'{"id": "x", "cents": "' + SECRET.encode() + b'"}', ["`int`, got `str`", "$.cents"]),
        (list[Payment], b'[{"id": 1}]', ["`str`, got `int`", "$[0].id"]),
        (Colour, b'"' + SECRET.encode() + b'"', ["none of those declared"]),
        (list[Literal["a"]], b'["' + SECRET.encode() + b'"]', ["none of those declared", "$[0]"]),
        (Cat | Dog, b'{"type": "' + SECRET.encode() + b'"}', ["none of those declared", "$.type"]),
        (Closed, b'{"a": 1, "' + SECRET.encode() + b'": 1}', ["none of those declared"]),
        (dict[int, int], b'{"' + SECRET.encode() + b'": 1}', ["`int`, got `str`", "key"]),
        (dict[str, list[int]], b'{"' + SECRET.encode() + b'": [1, "x"]}', ["$[...][1]"]),
        (UUID, b'"' + SECRET.encode() + b'"', ["Invalid UUID"]),
        (float, b"1e999", ["out of range"]),
        (int, b"9" * 5000, ["out of range"]),
        (Basket, b'{"items": [{"sku": "x", "many": "' + SECRET.encode() + b'"}]}', ["Basket.items", "int_type"]),
        (
            Basket,
            b'{"items": [], "counts": {"' + SECRET.encode() + b'": "x"}}',
            ["Basket.counts breaks the rule int_type"],
        ),
        (Basket, b'{"items": [], "' + SECRET.encode() + b'": 1}', ["Basket breaks the rule extra_forbidden"]),
        (Parcel, b'{"basket": {"items": 5}}', ["Basket.items", "list_type", "$.basket"]),
    ],
)
def test_a_damaged_row_is_a_payload_error_that_names_the_place(tp: Any, data: Any, names: list[str]) -> None:
    """The error says what was expected and where, never what stood there."""
    words = refused(lambda: schema(tp).decode(data))
    assert all(name in words for name in names), words


def test_unknown_fields_are_left_out_when_read() -> None:
    """A process of the older release reads what the newer one wrote; only writing is exact."""
    assert schema(Payment).decode(b'{"id": "x", "cents": 1, "added": [1]}') == Payment("x", 1)


def test_json_nested_a_hundred_thousand_deep_is_a_payload_error() -> None:
    """Neither reading nor comparing it ends in a RecursionError."""
    deep = b"[" * 10**5 + b"]" * 10**5
    assert "depth_max=64" in refused(lambda: schema(Any).decode(deep))
    assert "nested" in refused(lambda: schema(Any, depth_max=10**6, items_max=10**6).decode(deep))
    assert "nested" in refused(lambda: same_json(deep, b"1"))


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_depth_is_limited_to_the_level(opening: bytes) -> None:
    """Exactly depth_max levels pass, one more does not, both ways; brackets in texts don't count."""
    one = schema(Any, depth_max=5)
    closing = b"]" if opening == b"[" else b"}"
    fits, too_deep = opening * 5 + b"0" + closing * 5, opening * 6 + b"0" + closing * 6
    assert one.encode(one.decode(fits)) == fits
    refused(lambda: one.decode(too_deep))
    refused(lambda: one.encode(schema(Any).decode(too_deep)))
    assert one.encode([[], [], [], json.loads(opening * 4 + b"0" + closing * 4)])
    refused(lambda: one.encode([[], [], [], json.loads(opening * 5 + b"0" + closing * 5)]))
    assert one.decode(one.encode(['[[[[[["\\', "{{{{{{"])) == ['[[[[[["\\', "{{{{{{"]


def test_the_number_of_items_is_limited_to_the_item() -> None:
    """Commas and brackets count, those in texts do not."""
    one = schema(Any, items_max=10)
    assert one.decode(one.encode(list(range(10)))) == list(range(10))
    assert one.encode([",,,,,,,,,,,,[[["])
    assert "items_max=10" in refused(lambda: one.encode(list(range(11))))
    assert "items_max=10" in refused(lambda: one.decode(json.dumps([[]] * 6).encode()))


def test_the_size_is_limited_to_the_byte() -> None:
    """The limit is in bytes of JSON, on both ways."""
    one = schema(str, payload_bytes_max=10)
    assert one.decode(one.encode("x" * 8)) == "x" * 8
    assert "payload_bytes_max=10" in refused(lambda: one.encode("x" * 9))
    assert "11 bytes" in refused(lambda: one.decode(b'"xxxxxxxxx"'))
    assert refused(lambda: one.encode("é" * 5))


def test_limits_below_one_are_refused() -> None:
    """A codec that can hold nothing is a mistake."""
    with pytest.raises(DefinitionError):
        Codec(depth_max=0)


def test_an_encrypted_payload_is_json_and_comes_back_under_its_context() -> None:
    """The row holds a JSON string without a trace of the value."""
    one = schema(Payment, encryption=Sealer(b"k"))
    row = one.encode(Payment(SECRET, 1), b"order-1/input")
    assert isinstance(json.loads(row), str)
    assert SECRET.encode() not in row
    assert one.decode(row, b"order-1/input") == Payment(SECRET, 1)


def test_an_encrypted_payload_of_another_row_key_or_length_is_refused() -> None:
    """Swapped, damaged, cut, or encrypted under another key: never a value, and one clear error."""
    one, other = schema(str, encryption=Sealer(b"k")), schema(str, encryption=Sealer(b"other"))
    row = one.encode(SECRET, b"a")
    for reader, data, context in [
        (one, row, b"b"),
        (one, row, b""),
        (other, row, b"a"),
        (one, row[:-9] + row[-1:], b"a"),
        (one, row[:-3] + b'!!"', b"a"),
        (one, row[:20], b"a"),
        (one, row[:30] + b"!" + row[30:], b"a"),
    ]:
        assert "can't be decrypted" in refused(lambda: reader.decode(data, context))  # noqa: B023 - called at once


def test_an_encrypted_payload_without_a_key_says_so() -> None:
    """Also where a text is declared, for which the envelope itself would be a fine value."""
    row = schema(str, encryption=Sealer(b"k")).encode("x", b"a")
    assert "is encrypted and this codec has no key" in refused(lambda: schema(str).decode(row, b"a"))
    assert "can't begin with" in refused(lambda: schema(str).encode(json.loads(row)))


def test_a_plain_payload_is_refused_under_encryption_unless_allowed() -> None:
    """Somebody who can write rows must not get around the key; an old store can be read on request."""
    assert "not encrypted" in refused(lambda: schema(int, encryption=Sealer(b"k")).decode(b"5", b"a"))
    assert schema(int, encryption=Sealer(b"k"), plain_readable=True).decode(b"5", b"a") == 5


def test_limits_hold_for_what_was_encrypted() -> None:
    """An envelope does not smuggle anything past them, nor does its own length count."""
    wide, narrow = Codec(encryption=Sealer(b"k")), Codec(encryption=Sealer(b"k"), payload_bytes_max=10, depth_max=2)
    fits = narrow.schema(str).encode("x" * 8, b"a")
    assert narrow.schema(str).decode(fits, b"a") == "x" * 8
    value: Any
    for value in ("x" * 9, "x" * 10_000, [[[]]]):
        row = wide.schema(Any).encode(value, b"a")
        refused(lambda: narrow.schema(Any).decode(row, b"a"))  # noqa: B023 - called at once


def test_a_failing_cipher_is_a_payload_error() -> None:
    """Its words are not repeated: they may hold anything."""

    class Broken(Sealer):
        def encrypt(self, data: bytes, context: bytes) -> bytes:
            raise RuntimeError(f"no key for {data!r}")

    words = refused(lambda: schema(str, encryption=Broken(b"k")).encode(SECRET, b"a"))
    assert "RuntimeError" in words


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (b'{"a": 1, "b": [2]}', b'{"b":[2],"a":1}', True),
        (b'{"a": {"x": 1, "y": 2}}', b'{"a": {"y": 2, "x": 1}}', True),
        (b"1", b"1.0", True),
        (b"0.10", b"0.1", True),
        (b'"\\u0061"', b'"a"', True),
        (b"1", b"true", False),
        (b"0", b"null", False),
        (b'"1"', b"1", False),
        (b"[1,2]", b"[2,1]", False),
        (b'{"a": null}', b"{}", False),
        (b"18446744073709551616", b"18446744073709551617", False),
    ],
)
def test_payloads_are_compared_as_json_values(a: bytes, b: bytes, equal: bool) -> None:
    """Key order and spelling do not matter; types, order in arrays and the last digit do."""
    assert same_json(a, b) is equal
    assert same_json(b, a) is equal


@pytest.mark.parametrize("broken", [b"", b"{", b"NaN", b"1e999", b'"\xff"'])
def test_comparing_what_is_not_json_is_a_payload_error(broken: bytes) -> None:
    """A repeated start must not be taken for another one because a row is damaged."""
    refused(lambda: same_json(b"1", broken))
    refused(lambda: same_json(broken, b"1"))


def test_a_schema_compares_encrypted_payloads_and_sets() -> None:
    """Two ciphertexts of one value differ, and so may two spellings of one set."""
    one = schema(Line, encryption=Sealer(b"k"))
    line = Line("a", Decimal(1))
    a, b = one.encode(line, b"c"), one.encode(line, b"c")
    assert a != b
    assert one.same(a, b, b"c")
    assert not one.same(a, one.encode(Line("a", Decimal(2)), b"c"), b"c")
    sets = schema(dict[str, set[int]])
    assert sets.same(b'{"x": [1, 2], "y": []}', b'{"y": [], "x": [2, 1]}')
    assert not sets.same(b'{"x": [1, 2]}', b'{"x": [1, 3]}')
    refused(lambda: sets.same(b'{"x": [1]}', b'{"x": 1}'))
    assert schema(Any).same(b"1", b"1.0")
    assert schema(Any).same(b"1.0", b"1")


@pytest.mark.parametrize(
    "value",
    [
        Item.model_construct(sku=5, many=1),
        Item.model_construct(sku=SECRET, many="many"),
        Basket(items=[]),
        SECRET,
    ],
)
def test_a_wrong_pydantic_value_is_refused(value: Any) -> None:
    """Pydantic alone would write it and warn, with the value in the warning."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert "Item can't be made of this" in refused(lambda: schema(Item).encode(value))
    assert not warned


def test_a_pydantic_secret_is_refused_rather_than_masked() -> None:
    """It is written as stars, so it would come back as another secret."""

    @dataclass
    class Login:
        password: pydantic.SecretStr

    assert "SecretStr" in refused(lambda: schema(Login).encode(Login(pydantic.SecretStr(SECRET))))


def test_a_pydantic_type_in_a_plain_dataclass_comes_back() -> None:
    """Not only models: whatever brings its own Pydantic schema."""

    @dataclass
    class Link:
        url: pydantic.AnyUrl
        items: list[Item]

    link = Link(pydantic.AnyUrl("https://example.org/a"), [Item(stockKeepingUnit="x")])
    assert schema(Link).decode(schema(Link).encode(link)) == link


def test_pydantic_is_not_imported_for_other_types() -> None:
    """Users without Pydantic never pay for it."""
    program = (
        "import sys; from dataclasses import make_dataclass; from atone.codec import Codec;"
        "P = make_dataclass('P', [('a', int), ('more', object)]); schema = Codec().schema(P);"
        "schema.decode(schema.encode(P(1, [2]))); sys.exit('pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
