"""`atone outbox`: what waits and what no broker takes, without a body; and a worker that is told where messages go."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from uuid import uuid4

import pytest

from atone.broker import Message
from atone.stores.sqlite import SqliteStore
from atone.testing._subject import birth_of
from tests.runtime.cli_bench import Bench
from tests.runtime.parcels import Shop


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A store in a file of its own."""
    monkeypatch.delenv("ATONE_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return Bench(tmp_path / "sagas.db", Shop(), capsys)


def posted(bench: Bench, *messages: Message, refused: int = 0, why: str = "too large") -> None:
    """Have messages wait; the first ones are set aside."""

    async def main() -> None:
        async with SqliteStore(bench.file) as store:
            await store.commit(None, [birth_of(uuid4().bytes, owned=False)._replace(messages=messages)])
            found = await store.relay("r", published=(), refused={}, limit=refused, lease_seconds=60)
            aside = {one.ref: why for one in found.messages}
            await store.relay("r-2", published=(), refused=aside, limit=0, lease_seconds=60)

    asyncio.run(main())


def message(number: int, body: bytes = b"SECRET") -> Message:
    return Message(f"m-{number}", "order.placed", "order-1", body)


def test_an_empty_outbox_is_said_in_a_line(bench: Bench) -> None:
    """Zero, and nothing of what was set aside."""
    posted(bench)
    ran = bench.atone("outbox")
    assert (ran.status, ran.out) == (0, "Messages that wait to be published: 0.\n")


def test_what_waits_is_counted_and_what_was_set_aside_is_shown(bench: Bench) -> None:
    """With the reason, and without a body."""
    posted(bench, message(1), message(2), message(3), refused=1, why="it takes 5 bytes")
    words = bench.atone("outbox").words
    assert "Messages that wait to be published: 2, the oldest for " in words
    assert "Set aside, because no broker takes them: 1." in words
    assert "m-1 order.placed order-1 6 " in words
    assert "it takes 5 bytes" in words
    assert "SECRET" not in words


def test_the_outbox_in_json_is_one_object(bench: Bench) -> None:
    """With numbers that a monitor reads."""
    posted(bench, message(1), message(2), refused=1)
    shown = bench.atone("outbox", "--json").document
    assert (shown["waiting"], shown["set_aside"]) == (1, 1)
    assert shown["oldest_seconds"] >= 0
    (one,) = shown["messages"]
    assert (one["id"], one["topic"], one["key"], one["bytes"], one["why"]) == (
        "m-1", "order.placed", "order-1", 6, "too large",
    )  # fmt: skip
    assert "SECRET" not in str(shown)


def test_text_of_a_message_can_not_steer_the_terminal(bench: Bench) -> None:
    """Ids and reasons may come from anywhere."""
    posted(bench, message(1)._replace(id="m\x1b[31m"), refused=1, why="\x1b]0;title\x07")
    assert "\x1b" not in bench.atone("outbox").out


@pytest.mark.parametrize("limit", ["0", "-1", "10001"])
def test_a_limit_that_makes_no_sense_is_a_usage_error(bench: Bench, limit: str) -> None:
    """With the bounds."""
    posted(bench)
    ran = bench.atone("outbox", "--limit", limit)
    assert ran.status == 2
    assert "Between 1 and 10000" in ran.err


def ids_waiting(bench: Bench) -> list[str]:
    """Return what a relay is given now."""

    async def main() -> list[str]:
        async with SqliteStore(bench.file) as store:
            found = await store.relay("r-3", published=(), refused={}, limit=10, lease_seconds=60)
            return [one.message.id for one in found.messages]

    return asyncio.run(main())


def test_what_was_set_aside_is_posted_again_with_a_reason(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It waits once more, the log says who and why, and a second time there is nothing to post."""
    posted(bench, message(1), message(2), refused=1)
    ran = bench.atone("outbox", "--again", "m-1", "--reason", "it takes \x1b more", "--by", "ada")
    assert (ran.status, ran.out) == (0, "Message m-1: posted again.\n")
    assert caplog.messages == ["message m-1 was posted again by ada: it takes \\x1b more"]
    again = bench.atone("outbox", "--again", "m-1", "--reason", "once more")
    assert again.status == 1
    assert "No message 'm-1' is set aside" in again.err
    assert bench.atone("outbox", "--json").document["set_aside"] == 0
    assert ids_waiting(bench) == ["m-2", "m-1"]
    assert len(caplog.messages) == 1


def test_what_was_set_aside_is_dropped_with_a_reason(bench: Bench) -> None:
    """Without a terminal nobody is asked; the answer in JSON is one object."""
    posted(bench, message(1), message(2), refused=1)
    ran = bench.atone("outbox", "--drop", "m-1", "--reason", "of no use", "--by", "ada", "--json")
    assert ran.status == 0
    assert ran.document == {
        "request": {"kind": "drop", "id": "m-1", "by": "ada", "reason": "of no use"}, "verdict": "applied",
    }  # fmt: skip
    assert bench.atone("outbox", "--json").document["set_aside"] == 0
    assert ids_waiting(bench) == ["m-2"]


@pytest.mark.parametrize("kind", ["--again", "--drop"])
def test_what_waits_is_not_touched(bench: Bench, kind: str) -> None:
    """Only what was set aside is anybody's to decide on."""
    posted(bench, message(1), message(2))
    ran = bench.atone("outbox", kind, "m-1", "--reason", "a try", "--json")
    assert (ran.status, ran.out) == (1, "")
    assert "unknown_message" in ran.err
    assert ids_waiting(bench) == ["m-1", "m-2"]


def test_a_drop_is_asked_about_on_a_terminal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """No means no, `--yes` means that nobody is asked."""
    posted(bench, message(1), message(2), refused=2)
    for answer, options, status in (("n", (), 1), ("y", (), 0), ("", ("--yes",), 0)):
        terminal = io.StringIO(f"{answer}\n")
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", terminal)
        which = "m-2" if options else "m-1"
        ran = bench.atone("outbox", "--drop", which, "--reason", "of no use", *options)
        assert (ran.status, "Go on?" in ran.err) == (status, not options)
    assert bench.atone("outbox", "--json").document["set_aside"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--again", "m-1"), "Say why"),
        (("--drop", "m-1", "--reason", " "), "Say why"),
        (("--drop", "m-1", "--reason", "a try", "--by", ""), "Say who asks"),
        (("--again", "m-1", "--drop", "m-1", "--reason", "a try"), "one of them"),
        (("--reason", "a try"), "--again ID, or --drop ID"),
    ],
)
def test_a_change_that_is_half_said_is_a_usage_error(bench: Bench, options: tuple[str, ...], words: str) -> None:
    """Before anything is changed."""
    posted(bench, message(1), refused=1)
    ran = bench.atone("outbox", *options)
    assert ran.status == 2
    assert words in ran.err
    assert bench.atone("outbox", "--json").document["set_aside"] == 1
