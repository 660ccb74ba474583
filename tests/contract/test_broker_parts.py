"""The pure parts of the adapters for NATS and Kafka: addresses, texts on the wire, and how far an offset may go."""

from __future__ import annotations

import random

import pytest

from atone.broker import Message
from atone.brokers import _kafka_wire, _nats_wire
from atone.brokers._hosts import hosts_of
from atone.brokers._kafka_window import Window
from atone.errors import BrokerError

EXAMPLE = "nats://user:password@host:4222"
TEXTS = [
    "",
    "plain",
    " blanks ",
    "   ",
    "100 % of 50%25",
    "two\r\nlines",
    "Łucja 株式会社 🚚",
    "\ud800 alone",
    "a: b",
    "\x00\x7f",
]


def test_an_address_has_hosts_a_login_and_options() -> None:
    """Several hosts, an IPv6 one, %-escapes in the login; `shown` has the hosts alone."""
    read = hosts_of("nats://u%40x:p%3A%2F@one,two:99,[::1]:5?stream=A", EXAMPLE, 4222, frozenset({"stream"}))
    assert read.hosts == (("one", 4222), ("two", 99), ("::1", 5))
    assert (read.user, read.password, read.options) == ("u@x", "p:/", {"stream": "A"})
    assert read.shown == "one:4222, two:99, ::1:5"


@pytest.mark.parametrize(
    "url",
    [
        "nats://u:s3cret@host:port",
        "nats://u:s3cret@[::1",
        "nats://u:s3cret@host?s3cret=1",
        "nats://u:s3cret@host#s3cret",
        "nats://u:s3cret@host:70000",
        "nats://u:s3cret@host,,other",
    ],
)
def test_an_address_that_can_not_be_read_is_not_repeated(url: str) -> None:
    """A password may stand anywhere in it."""
    with pytest.raises(BrokerError) as caught:
        hosts_of(url, EXAMPLE, 4222, frozenset({"stream"}))
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf", ""])
def test_an_option_that_is_no_number_is_refused(text: str) -> None:
    """Also one that Python would take for a number."""
    read = hosts_of(f"nats://host?seconds={text}", EXAMPLE, 4222, frozenset({"seconds"}))
    with pytest.raises(BrokerError, match="seconds"):
        read.number("seconds", 1.0, least=0.5)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_from_the_headers_of_nats(text: str) -> None:
    """They are one line of printable ASCII on the wire, without blanks around it."""
    sent = Message("id-1", "a.b", text, b"x", {"h": text})
    headers = _nats_wire.headers_of(sent)
    assert all(value == value.strip() and value.isascii() for value in headers.values())
    assert all(value.isprintable() for value in headers.values())
    assert _nats_wire.message_from("a.b", b"x", headers, "fallback") == sent


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_from_a_record_of_kafka(text: str) -> None:
    """As UTF-8, also what is none."""
    sent = Message("id-1", "a.b", text, b"x", {"h": text})
    found = _kafka_wire.message_from("a.b", _kafka_wire.key_of(sent), b"x", _kafka_wire.headers_of(sent), "fallback")
    assert found == sent


@pytest.mark.parametrize("topic", ["a", "a.b.c", "a..b", ".a", "a.", "..", "a_b-c.9"])
def test_each_topic_has_a_subject_of_its_own(topic: str) -> None:
    """Also one with empty words, which NATS does not have."""
    names = _nats_wire.Names("ATONE", "atone")
    assert names.topic_of(names.topic(topic)) == topic
    assert names.topic_of(names.again("a group", topic)) == topic
    assert all(names.topic(topic).split("."))


def test_different_groups_have_different_names() -> None:
    """Whatever characters are in them."""
    groups = ["a.b", "a_b", "a b", "a=2Eb", "a_2Eb", "A.b", "ä", "*", ">", "a/b"]
    assert len({_nats_wire.consumer_name(group) for group in groups}) == len(groups)
    assert len({_kafka_wire.Names("atone.").dead(group) for group in groups}) == len(groups)


def test_an_offset_never_passes_one_that_is_not_ended() -> None:
    """In any order of ending, with gaps between the offsets; and in the end it is past all of them."""
    chance = random.Random(1)
    for _ in range(200):
        offsets = sorted(chance.sample(range(60), 20))
        window, open_ones = Window(), set(offsets)
        for offset in offsets:
            window.take(offset)
        for offset in chance.sample(offsets, len(offsets)):
            before = window.position
            open_ones.discard(offset)
            assert window.end(offset) == (window.position != before)
            assert window.position is None or window.position <= min(open_ones, default=61)
        assert window.position == offsets[-1] + 1
        assert len(window) == 0
