"""The command line on real stores with real sagas: every command, every exit status, and text that strangers wrote."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import shlex
import typing
from pathlib import Path
from typing import Any

import pytest

from atone import Completed, NeedsAttention, SagaStatus
from atone._core.journal import Entry
from atone.cli import main
from atone.cli.exits import Exit
from atone.cli.saga_json import payload_text
from atone.cli.words import Narrator
from atone.codec import Codec
from tests.runtime.cli_bench import Bench
from tests.runtime.parcels import AwaitPickup, Parcel, SendParcel, Shop, working

WHY = ("--reason", "the customer asked", "--by", "ada")
SAGA_KEYS = {
    "key", "tenant", "name", "saga_id", "definition_version", "plan_hash", "status", "style", "worker", "wake_at",
    "created_at",
}  # fmt: skip
SHOW_KEYS = {
    "saga", "cause", "rollback", "deadline", "broken", "ended_because", "unanswered", "steps", "journal",
    "unreadable_rows", "trouble",
}  # fmt: skip
STEP_KEYS = {
    "step", "role", "status", "attempts", "probe_attempts", "compensation_attempts", "in_doubt", "due_at", "attention",
    "waived", "problem",
}  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A store in a file of its own, and nobody at the keyboard."""
    monkeypatch.delenv("ATONE_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return Bench(tmp_path / "sagas.db", Shop(), capsys)


def unescaped(text: str) -> set[str]:
    """Return the characters that a terminal would obey or hide."""
    return {one for one in text if one not in "\n " and not one.isprintable()}


# list


def test_the_list_shows_each_saga_in_a_line_of_80_columns(bench: Bench) -> None:
    """Id, name, status, age, wake and worker, oldest first, nothing wider than a plain terminal."""
    bench.parcels("order-1")
    bench.pickup("order-2")
    ran = bench.atone("list")
    head, first, second = ran.out.splitlines()
    assert ran.status == 0
    assert head.split() == ["ID", "NAME", "STATUS", "AGE", "WAKE", "WORKER"]
    assert first.split()[:3] == ["order-1", "SendParcel", "completed"]
    assert second.split()[:3] == ["order-2", "AwaitPickup", "running"]
    assert "in 23h" in second
    assert max(map(len, ran.out.splitlines())) <= 80


def test_statuses_are_coloured_on_a_terminal_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets plain text; a terminal sees at once which saga needs a person."""
    bench.parcels("order-1", faults="hand_over")
    assert "\x1b" not in bench.atone("list").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31mneeds_attention" in bench.atone("list").out


def test_the_list_in_json_is_one_object_a_line_with_whole_ids(bench: Bench) -> None:
    """The keys are a promise, and no id is cut however long it is."""
    long_id = "order-" + "0123456789" * 25
    bench.parcels(long_id, "order-2")
    ran = bench.atone("list", "--json")
    assert [line["saga_id"] for line in ran.lines] == [long_id, "order-2"]
    assert all(line.keys() == SAGA_KEYS for line in ran.lines)
    assert ran.lines[0]["status"] == "completed"


def test_the_list_is_filtered_by_name_status_and_tenant(bench: Bench) -> None:
    """Each filter leaves out what does not fit; a status may be written with a hyphen."""
    bench.parcels("order-1")
    bench.parcels("order-2", faults="hand_over")
    bench.pickup("order-3")

    def ids(*arguments: str) -> list[str]:
        return [line["saga_id"] for line in bench.atone("list", "--json", *arguments).lines]

    assert ids("--name", "AwaitPickup") == ["order-3"]
    assert ids("--status", "needs-attention") == ["order-2"]
    assert ids("--status", "completed", "--status", "running") == ["order-1", "order-3"]
    assert ids("--tenant", "somebody else") == []
    assert bench.atone("list", "--tenant", "somebody else").out == "No saga fits.\n"


def test_the_list_goes_on_where_the_page_before_ended(bench: Bench) -> None:
    """A full page says how to go on, and `--after` continues without a gap or a repeat."""
    ids = [f"order-{number}" for number in range(5)]
    bench.parcels(*ids)
    first = bench.atone("list", "--limit", "2")
    assert "--after SendParcel/order-1" in first.out
    second = bench.atone("list", "--limit", "2", "--after", "order-1", "--json")
    assert [line["saga_id"] for line in second.lines] == ids[2:4]
    last = bench.atone("list", "--limit", "2", "--after", "order-3")
    assert "order-4" in last.out
    assert "--after" not in last.out


@pytest.mark.parametrize(
    "wrong", [("--status", "lost"), ("--limit", "0"), ("--limit", "9" * 30), ("--limit", "many"), ("--colour",)]
)
def test_a_list_that_makes_no_sense_is_a_usage_error(bench: Bench, wrong: tuple[str, ...]) -> None:
    """The status is 2 and the message names what was given."""
    bench.parcels("order-1")
    ran = bench.atone("list", *wrong)
    assert ran.status == 2
    assert ran.out == ""
    assert wrong[0].lstrip("-") in ran.err


# Which store, which saga


@pytest.mark.parametrize("command", [("list",), ("show", "x"), ("cancel", "x", *WHY)])
def test_a_look_at_a_wrong_path_makes_no_store(bench: Bench, command: tuple[str, ...]) -> None:
    """The path is named, the status is 1, and the folder stays as empty as it was."""
    ran = bench.atone(*command)
    assert ran.status == 1
    assert str(bench.file) in ran.err
    assert list(bench.file.parent.iterdir()) == []


def test_an_empty_file_is_not_made_into_a_store(bench: Bench) -> None:
    """A look must not write its schema into a file that somebody has only touched."""
    bench.file.touch()
    assert bench.atone("list").status == 1
    assert bench.file.read_bytes() == b""


def test_a_file_that_is_no_store_is_refused(bench: Bench) -> None:
    """Somebody's notes are no database; they are named and left alone."""
    bench.file.write_text("notes" * 1000)
    ran = bench.atone("list", "--json")
    assert ran.status == 1
    assert bench.file.read_text() == "notes" * 1000


@pytest.mark.parametrize("url", ["orders.db", "memory://", "sqlite://", "oracle://x"])
def test_a_url_that_names_no_store_is_a_usage_error(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says what to write instead; a memory store can't be seen from another process."""
    assert main(["list", "--store", url]) == 2
    said = capsys.readouterr().err
    assert ("another one" if url.startswith("memory") else "sqlite:///") in said


def test_the_store_may_come_from_the_environment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--store`, ATONE_STORE says where; without both it is asked for."""
    bench.parcels("order-1")
    assert main(["list"]) == 2
    assert "ATONE_STORE" in bench.capture.readouterr().err
    monkeypatch.setenv("ATONE_STORE", bench.url)
    assert main(["list"]) == 0
    assert "order-1" in bench.capture.readouterr().out


def test_looking_registers_no_worker_and_writes_nothing(bench: Bench) -> None:
    """Every look leaves the tables as they were."""
    bench.parcels("order-1", faults="hand_over")
    tables = ("workers", "sagas", "journal", "requests")
    before = {table: bench.statement(f"SELECT * FROM {table}") for table in tables}
    for look in (("list",), ("show", "order-1"), ("explain", "order-1"), ("preview", "order-1")):
        assert bench.atone(*look).status == 0
    assert {table: bench.statement(f"SELECT * FROM {table}") for table in tables} == before


@pytest.mark.parametrize("command", [("show",), ("explain",), ("preview",), ("cancel",), ("terminate",)])
def test_an_unknown_id_is_refused_with_the_next_move(bench: Bench, command: tuple[str, ...]) -> None:
    """The status is 1, and the message says how to see what there is."""
    bench.parcels("order-1")
    ran = bench.atone(*command, "order-2", *(WHY if command[0] in {"cancel", "terminate"} else ()), "--json")
    assert ran.status == 1
    assert ran.out == ""
    assert '"error": "unknown_saga"' in ran.err
    assert "atone list" in ran.err


def test_an_ambiguous_id_lists_the_candidates(bench: Bench) -> None:
    """Two definitions may have the same id; then the name goes before it, or into `--name`."""
    bench.parcels("order-1")
    bench.pickup("order-1")
    ran = bench.atone("show", "order-1")
    assert ran.status == 2
    assert ran.err.splitlines()[1:] == ["  SendParcel/order-1", "  AwaitPickup/order-1"]
    assert bench.atone("show", "AwaitPickup/order-1", "--json").document["saga"]["name"] == "AwaitPickup"
    assert bench.atone("show", "order-1", "--name", "SendParcel", "--json").document["saga"]["name"] == "SendParcel"


def test_an_id_with_a_slash_in_it_is_found(bench: Bench) -> None:
    """The slash may be the id's own."""
    bench.parcels("2026/17", "SendParcel/2026/17")
    assert bench.atone("show", "SendParcel/SendParcel/2026/17").status == 0
    assert bench.atone("show", "2026/17", "--json").document["saga"]["saga_id"] == "2026/17"
    assert bench.atone("show", "SendParcel/2026/17").status == 2


# show


def test_the_timeline_has_a_lane_for_compensations_beside_the_way_forward(bench: Bench) -> None:
    """What was done stands left, what was undone stands right, on lines of 80 columns."""
    bench.parcels("order-1", faults="pay")
    ran = bench.atone("show", "order-1")
    lines = ran.out.splitlines()
    head = next(line for line in lines if "COMPENSATION" in line)
    lane = head.index("COMPENSATION")
    began = [line.index("pack: ") for line in lines if "pack: attempt 1" in line]
    undone = [line.index("pack: ") for line in lines if "pack: compensation" in line]
    assert ran.status == 0
    assert began == [head.index("FORWARD")] * 2
    assert undone == [lane] * 2
    assert max(map(len, lines)) <= 80


def test_the_timeline_tells_times_attempts_and_problems(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute and relative time, the number of the attempt, the type and the message of what went wrong."""
    monkeypatch.setenv("COLUMNS", "200")
    bench.parcels("order-1", faults="pay")
    ran = bench.atone("show", "order-1")
    assert "pay: attempt 1 was rejected" in ran.words
    assert "Reject: the card was declined" in ran.words
    assert "turns backward: failure of pay" in ran.words
    row = next(line for line in ran.out.splitlines() if "pay: attempt 1 was" in line).split()
    assert row[0] == "3"
    assert row[1].count(":") == 2
    assert row[2].startswith("+")


def test_tracebacks_are_shown_only_if_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """They name files and functions; neither people nor programs get them by default."""
    monkeypatch.setenv("COLUMNS", "400")  # so that no path is broken in two
    bench.parcels("order-1", faults="pay")
    assert "parcels.py" not in bench.atone("show", "order-1").out
    assert "parcels.py" not in bench.atone("show", "order-1", "--json").out
    assert "parcels.py" in bench.atone("show", "order-1", "--verbose").words
    assert "parcels.py" in bench.atone("show", "order-1", "--json", "--verbose").out


def test_payloads_are_shown_only_if_asked_for(bench: Bench) -> None:
    """A card number in an input stays out of every look that did not ask for payloads."""
    bench.parcels("order-1", faults="pay")
    for look in (("show", "order-1"), ("show", "order-1", "--json"), ("show", "order-1", "--verbose"), ("list",)):
        assert "4111-1111" not in bench.atone(*look).out  # four digits alone may stand in a hash or a time
    assert "4111-1111" in bench.atone("show", "order-1", "--payloads").out
    document = bench.atone("show", "order-1", "--payloads", "--json").document
    assert document["journal"][0]["entries"][0]["input"]["value"] == {"content": "a cup", "card": "4111-1111"}


class Rot13:
    """An encryption that a test can see through."""

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        return base64.b85encode(data)

    def decrypt(self, data: bytes, context: bytes) -> bytes:
        return base64.b85decode(data)


def test_encrypted_payloads_are_said_to_be_encrypted(bench: Bench) -> None:
    """The command line has no key; it says so instead of printing what nobody can read."""

    async def story() -> None:
        async with working(bench.url, bench.shop, Codec(encryption=Rot13())) as orchestrator:
            await orchestrator.execute(SendParcel, Parcel("a cup"), saga_id="order-1", timeout=20)

    bench.run(story)
    assert "input: encrypted" in bench.atone("show", "order-1", "--payloads").words
    entry = bench.atone("show", "order-1", "--payloads", "--json").document["journal"][0]["entries"][0]
    assert entry["input"]["payload"] == "encrypted"
    assert entry["input"].keys() == {"payload", "bytes"}
    assert payload_text(b'"plain"') == '"plain"'


def test_a_result_of_an_encrypted_saga_is_for_code_that_has_the_key(bench: Bench) -> None:
    """A plain one would be refused by the worker; so it is not offered, and not sent."""
    bench.shop.faults.add("hand_over")

    async def story() -> None:
        async with working(bench.url, bench.shop, Codec(encryption=Rot13())) as orchestrator:
            await orchestrator.execute(SendParcel, Parcel("a cup"), saga_id="order-1", timeout=20)

    bench.run(story)
    in_code = "orchestrator.resolve(SendParcel, 'order-1', 'hand_over', landed=True"
    told = bench.atone("explain", "SendParcel/order-1")
    assert in_code in told.words
    assert "hand_over --landed" not in told.words
    assert "hand_over --not-landed" in told.words
    for result in (["--result", '{"number": 7}'], []):
        ran = bench.atone("resolve", "order-1", "hand_over", "--landed", *result, "--reason", "I looked", "--wait", "0")
        assert ran.status == Exit.REFUSED
        assert in_code in " ".join(ran.err.split())
    ran = bench.atone("resolve", "order-1", "hand_over", "--not-landed", "--reason", "I looked", "--wait", "0")
    assert ran.status == Exit.RECORDED


def test_show_in_json_is_one_document_with_stable_keys(bench: Bench) -> None:
    """The head, the steps and every row, each entry with its lane and its words."""
    bench.parcels("order-1", faults="pay")
    document = bench.atone("show", "order-1", "--json").document
    assert document.keys() == SHOW_KEYS
    assert document["saga"].keys() == SAGA_KEYS
    assert all(step.keys() == STEP_KEYS for step in document["steps"])
    assert document["cause"] == {"trigger": "failure", "step": "pay", "message": "the card was declined", "by": None}
    assert document["rollback"] == ["pack"]
    assert [row["row"] for row in document["journal"]] == list(range(1, len(document["journal"]) + 1))
    entries = [entry for row in document["journal"] for entry in row["entries"]]
    assert all({"type", "lane", "text"} <= entry.keys() for entry in entries)
    undo = next(entry for entry in entries if entry.get("operation") == "compensation")
    assert (undo["type"], undo["step"], undo["attempt"], undo["lane"]) == ("attempt_started", "pack", 1, "compensation")


def test_requests_are_told_with_who_asked_and_why(bench: Bench) -> None:
    """A timeline answers who did this, and for what reason."""
    bench.parcels("order-1", faults="hand_over")

    async def story() -> None:
        async with working(bench.url, bench.shop):
            await bench.beside("terminate", "order-1", *WHY)

    bench.run(story)
    words = bench.atone("show", "order-1").words
    assert "terminate, asked by ada: the customer asked" in words
    assert "the terminate was applied" in words or "ended failed: terminated by ada: the customer asked" in words


def test_every_entry_of_a_journal_has_words() -> None:
    """A new kind of entry must get its sentence; its class's name is no sentence."""
    asked: Any = type("Asked", (), {"id": "1", "kind": "cancel", "by": "ada", "reason": "", "step": None,
                                    "event": None, "payload": None, "landed": None})()  # fmt: skip
    wordless = [kind.__name__ for kind in typing.get_args(Entry) if kind.__name__ in _told(kind, asked)]
    assert wordless == []


def _told(kind: type, request: Any) -> str:
    from atone._core.facts import Landed, Operation, Problem
    from atone._core.state import Cause

    samples: dict[str, Any] = {
        "operation": Operation.ACTION, "problem": Problem("E", "m"), "answer": Landed.LANDED, "request": request,
        "cause": Cause("failure", "pay", "m"), "rollback": ("pay",), "status": SagaStatus.FAILED, "input": b"1",
        "result": b"1", "attempt": 1, "due_at": 1.0, "until": 1.0, "at": 1.0, "deadline": 1.0, "runs": True,
        "landed": True, "version": 1,
    }  # fmt: skip
    fields = kind.__annotations__  # a dataclass has it, and so has a named tuple
    values = {name: samples.get(name, "text") for name in fields}
    if kind.__name__ == "RequestAnswered":
        values["answer"] = "applied"
    return " ".join(said.text for said in Narrator().tell(kind(**values), 0.0))


def test_a_command_and_its_replies_are_told_in_words() -> None:
    """It was sent, not begun; who replied, to which attempt, and what: in the lane of what it answers."""
    from atone._core.facts import Operation
    from atone._core.journal import AttemptStarted, RequestReceived
    from atone._core.plan import Does, Plan, StepPlan
    from atone._core.state import Request

    narrator = Narrator(Plan("Trip", 1, (StepPlan("book", does=Does.COMMAND), StepPlan("pay"))))
    done = Request("r1", "reply", "hotel", "replied", "book", landed=True)
    undone = done._replace(id="r2", landed=False, reason="no such room", operation=Operation.COMPENSATION, attempt=2)
    entries = [
        AttemptStarted("book", Operation.ACTION, 1, 1.0, 0.0),
        AttemptStarted("pay", Operation.ACTION, 1, 1.0, 0.0),
        RequestReceived(done),
        RequestReceived(undone),
    ]
    assert [(said.lane.value, said.text) for entry in entries for said in narrator.tell(entry, 0.0)] == [
        ("forward", "book: attempt 1 was sent"),
        ("forward", "pay: attempt 1 began"),
        ("forward", "book: hotel replied to attempt 1: done"),
        ("compensation", "book: hotel replied to compensation attempt 2: rejected, no such room"),
    ]


# explain and preview


def test_explain_says_why_what_next_and_what_may_be_done(bench: Bench) -> None:
    """For people in words, for programs under stable keys; no user code is needed for it."""
    bench.parcels("order-1", faults="hand_over")
    ran = bench.atone("explain", "order-1")
    assert ran.status == 0
    assert ran.out.splitlines()[0] == "Needs attention: hand_over."
    assert "no answer from the carrier" in ran.words
    document = bench.atone("explain", "order-1", "--json").document
    assert document.keys() == {"saga", "headline", "why", "next", "may"}
    assert all(option.keys() == {"command", "step", "landed", "does"} for option in document["may"])
    may = {(option["command"], option["step"], option["landed"]) for option in document["may"]}
    assert {("resolve", "hand_over", True), ("resolve", "hand_over", False), ("terminate", None, None)} <= may


def test_every_command_that_explain_suggests_is_one_that_works(bench: Bench) -> None:
    """Copied from the screen, whatever the id looks like, each is understood and recorded."""
    saga_id = "order 'one'; echo $HOME"
    bench.parcels(saga_id, faults="hand_over")
    suggested = [
        shlex.split(line.replace("Slip as JSON", '{"number": 7}'))
        for line in bench.atone("explain", saga_id).out.splitlines()
        if line.startswith("  atone ")
    ]
    assert {words[1] for words in suggested} >= {"retry", "resolve", "terminate"}
    for words in suggested:
        assert bench.atone(*words[1:], "--wait", "0").status == 3
    asked = bench.atone("show", saga_id, "--json").document["unanswered"]
    assert [request["kind"] for request in asked] == [words[1] for words in suggested]


def test_preview_says_when_there_is_nothing_to_undo_or_no_way_back(bench: Bench) -> None:
    """A wait has no effect; a saga that is over is not undone. Both are answers, so the status is 0."""
    bench.parcels("order-1")
    bench.pickup("order-2")
    document = bench.atone("preview", "order-2", "--json").document
    assert document.keys() == {"saga", "possible", "why_not", "order", "steps", "stands"}
    assert all(step.keys() == {"step", "what", "why", "in_seconds"} for step in document["steps"])
    assert (document["possible"], document["order"]) == (True, [])
    over = bench.atone("preview", "order-1")
    assert over.status == 0
    assert over.out == "Nothing would be undone: the saga is over: completed.\n"


def test_preview_of_a_saga_under_way_names_the_steps_to_undo(bench: Bench) -> None:
    """The parcel is packed and being paid for: a cancel waits for the payment, then undoes both."""

    async def story() -> None:
        async with working(bench.url, bench.shop) as orchestrator:
            bench.shop.pause = asyncio.Event()
            handle = await orchestrator.start(SendParcel, Parcel("a cup"), saga_id="order-1")
            async for progress in handle.watch():
                if progress.steps["pay"].value == "running":
                    break
            ran = await bench.beside("preview", "order-1")
            assert ran.status == 0
            assert ran.words.startswith("A cancel now would undo, in this order:")
            assert "1 pay wait until" in ran.words
            assert "2 pack undo" in ran.words
            document = (await bench.beside("preview", "order-1", "--json")).document
            assert document["order"] == ["pay", "pack"]
            assert [step["what"] for step in document["steps"]] == ["wait", "undo", "nothing", "nothing"]
            bench.shop.pause.set()
            await handle.outcome(timeout=20)

    bench.run(story)


def test_preview_says_what_waits_for_a_person(bench: Bench) -> None:
    """A compensation that gave up is not undone by itself."""
    bench.parcels("order-1", faults="pay unpack")
    assert "pack waits for a person" in bench.atone("preview", "order-1").words


def test_a_damaged_saga_is_not_explained_but_shown_the_way(bench: Bench) -> None:
    """There is no state to reason about; the message names the row and the next move."""
    bench.parcels("order-1", faults="hand_over")
    bench.statement("UPDATE journal SET entries = ? WHERE version = 2", b"no journal")
    for command in ("explain", "preview"):
        ran = bench.atone(command, "order-1", "--json")
        assert ran.status == 1
        assert "Journal row 2 can't be read" in ran.err
        assert "atone show SendParcel/order-1" in ran.err


# Damage


def test_a_damaged_row_is_named_and_the_rest_is_shown(bench: Bench) -> None:
    """The list does not look at journals; show says which row, prints the others, and ends with status 1."""
    bench.parcels("order-1", "order-2", faults="pay")
    key = bench.statement("SELECT key FROM sagas WHERE saga_id = 'order-1'")[0][0]
    bench.statement("UPDATE journal SET entries = ? WHERE saga = ? AND version = 2", b'[{"type": "magic"}]', key)
    assert [line["saga_id"] for line in bench.atone("list", "--json").lines] == ["order-1", "order-2"]
    ran = bench.atone("show", "order-1")
    assert ran.status == 1
    assert "Journal row 2 can't be read" in ran.words
    assert "pay: attempt 1 was rejected" in ran.words
    document = bench.atone("show", "order-1", "--json").document
    assert [row["row"] for row in document["unreadable_rows"]] == [2]
    assert [row["row"] for row in document["journal"]] == [1, 3, 4]
    assert document["steps"] == []
    assert bench.atone("show", "order-2").status == 0


def test_a_missing_row_and_one_that_does_not_fit_are_named(bench: Bench) -> None:
    """A hole and a row of another saga are damage too."""
    bench.parcels("order-1", "order-2")
    keys = dict(bench.statement("SELECT saga_id, key FROM sagas"))
    bench.statement("DELETE FROM journal WHERE version = 3 AND saga = ?", keys["order-1"])
    ran = bench.atone("show", "order-1")
    assert ran.status == 1
    assert "row 3 is missing" in ran.words
    stray = b'[{"type": "step_gave_up", "step": "nowhere"}]'
    bench.statement("UPDATE journal SET entries = ? WHERE version = 3 AND saga = ?", stray, keys["order-2"])
    ran = bench.atone("show", "order-2")
    assert ran.status == 1
    assert "row 3 does not fit" in ran.words


def test_a_saga_whose_plan_is_gone_is_shown_without_its_state(bench: Bench) -> None:
    """The journal can be told without the plan."""
    bench.parcels("order-1")
    bench.statement("UPDATE definitions SET plan = NULL")
    ran = bench.atone("show", "order-1")
    assert ran.status == 1
    assert "The plan" in ran.words
    assert "ended completed" in ran.words


def test_a_saga_parked_for_damage_goes_on_after_the_row_is_restored(bench: Bench) -> None:
    """The worker parks what it can't read; somebody restores the row, asks for a retry, and the saga goes on."""
    bench.pickup("order-1")
    (good,) = bench.statement("SELECT entries FROM journal WHERE version = 1")
    bench.statement("UPDATE journal SET entries = ? WHERE version = 1", b"[]]")
    bench.statement("UPDATE sagas SET wake_at = 0")

    async def story() -> None:
        async with working(bench.url, bench.shop) as orchestrator:
            assert isinstance(await orchestrator.outcome(AwaitPickup, "order-1", timeout=20), NeedsAttention)
            assert "Journal row 1 can't be read" in (await bench.beside("show", "order-1")).words
            bench.statement("UPDATE journal SET entries = ? WHERE version = 1", *good)
            assert (await bench.beside("retry", "order-1", *WHY)).status == 0

    bench.run(story)
    words = bench.atone("show", "order-1").words
    assert "the saga: needs a person: Journal row 1 can't be read" in words
    assert "the retry was applied" in words
    assert "goes on" in words
    assert bench.atone("list", "--json").lines[0]["status"] == "running"


# Hostile text

HOSTILE = "x\x1b[31m\x1b]0;owned\x07[bold red]pwned[/bold red]\r\n\u202egnp.exe\x9b2J\u2028:smile:\x7f"


def test_text_from_a_store_can_not_steer_the_terminal(bench: Bench) -> None:
    """Escapes, markup, line breaks and reordering in an id, a reason and a name of an asker are shown, not obeyed."""
    bench.pickup(HOSTILE, HOSTILE)
    given = ("--reason", HOSTILE, "--by", HOSTILE, "--wait", "0")
    for ran in (
        bench.atone("cancel", HOSTILE, *given),
        bench.atone("list"),
        bench.atone("show", HOSTILE, "--payloads", "--verbose"),
        bench.atone("show", f"{HOSTILE}?"),
        bench.atone("explain", HOSTILE),
        bench.atone("preview", HOSTILE),
        bench.atone("retry", HOSTILE, HOSTILE, *given),
    ):
        assert unescaped(ran.out + ran.err) == set()
    shown = bench.atone("show", HOSTILE).out.replace("\n", "").replace(" ", "")
    assert "[boldred]pwned[/boldred]" in shown
    assert ":smile:" in shown
    assert "\\x1b[31m" in shown


def test_json_carries_hostile_text_unchanged_and_harmless(bench: Bench) -> None:
    """What is printed is plain ASCII; what a program reads from it is exactly what was stored."""
    bench.pickup(HOSTILE, HOSTILE)
    bench.atone("cancel", HOSTILE, "--reason", HOSTILE, "--by", HOSTILE, "--wait", "0")
    ran = bench.atone("show", HOSTILE, "--json", "--payloads")
    assert ran.out.isascii()
    assert unescaped(ran.out) == set()
    assert ran.document["saga"]["saga_id"] == HOSTILE
    assert ran.document["unanswered"][0]["reason"] == HOSTILE.strip()
    assert ran.document["journal"][0]["entries"][0]["input"]["value"] == HOSTILE
    assert bench.atone("list", "--json").lines[0]["saga_id"] == HOSTILE


# Changes

CHANGES: list[tuple[str, ...]] = [
    ("retry", "order-1"),
    ("retry", "order-1", "pack"),
    ("resolve", "order-1", "hand_over", "--not-landed"),
    ("skip", "order-1", "pack"),
    ("cancel", "order-1"),
    ("terminate", "order-1"),
]


@pytest.mark.parametrize("command", CHANGES)
@pytest.mark.parametrize("reason", [(), ("--reason", " "), ("--reason", "x" * 2001)])
def test_a_change_needs_a_reason(bench: Bench, command: tuple[str, ...], reason: tuple[str, ...]) -> None:
    """Without one, nothing is written, the status is 2, and the message says what to add."""
    bench.parcels("order-1", faults="hand_over")
    ran = bench.atone(*command, *reason)
    assert ran.status == 2
    assert '--reason "..."' in ran.err
    assert bench.statement("SELECT count(*) FROM requests") == [(0,)]


@pytest.mark.parametrize("command", CHANGES)
def test_a_change_of_a_saga_that_is_over_is_refused(bench: Bench, command: tuple[str, ...]) -> None:
    """A final saga is never changed: status 1, and nothing is written."""
    bench.parcels("order-1")
    ran = bench.atone(*command, *WHY)
    assert ran.status == 1
    assert "is over (completed)" in ran.err
    assert bench.statement("SELECT count(*) FROM requests") == [(0,)]


@pytest.mark.parametrize("command", CHANGES)
def test_a_change_without_a_worker_is_recorded(bench: Bench, command: tuple[str, ...]) -> None:
    """The request is durable, nobody has answered: status 3, and the message says to start a worker."""
    bench.parcels("order-1", faults="hand_over")
    ran = bench.atone(*command, *WHY, "--wait", "0")
    assert ran.status == 3
    assert "no worker has answered yet; start one" in ran.out
    (asked,) = bench.atone("show", "order-1", "--json").document["unanswered"]
    assert (asked["kind"], asked["by"], asked["reason"]) == (command[0], "ada", "the customer asked")


def test_a_recorded_change_is_answered_by_the_next_worker(bench: Bench) -> None:
    """What was asked while nobody worked is done as soon as somebody does."""
    bench.pickup("order-1")
    assert bench.atone("cancel", "order-1", *WHY, "--wait", "0").status == 3

    async def story() -> None:
        async with working(bench.url, bench.shop) as orchestrator:
            await orchestrator.outcome(AwaitPickup, "order-1", timeout=20)

    bench.run(story)
    assert bench.atone("show", "order-1", "--json").document["saga"]["status"] == "compensated"


def test_an_applied_change_has_status_0_and_one_json_document(bench: Bench) -> None:
    """Who, what, why, the verdict, and where the saga stands now."""
    bench.parcels("order-1", faults="hand_over")

    async def story() -> None:
        async with working(bench.url, bench.shop):
            ran = await bench.beside("terminate", "order-1", *WHY, "--json")
            assert ran.status == 0
            assert ran.document.keys() == {"request", "verdict", "note", "saga"}
            request = ran.document["request"]
            assert request.keys() == {"id", "kind", "step", "landed", "by", "reason"}
            assert (request["kind"], request["by"], request["reason"]) == ("terminate", "ada", "the customer asked")
            assert (ran.document["verdict"], ran.document["saga"]["status"]) == ("applied", "failed")

    bench.run(story)


def test_a_refused_change_has_status_1_and_the_owners_note(bench: Bench) -> None:
    """The owner says why; the command line passes it on."""
    bench.parcels("order-1", faults="hand_over")

    async def story() -> None:
        async with working(bench.url, bench.shop):
            ran = await bench.beside("resolve", "order-1", "pay", "--not-landed", *WHY)
            assert ran.status == 1
            assert "resolve: refused: its outcome is not in doubt" in ran.out

    bench.run(story)


def test_a_cancel_past_the_point_of_no_return_is_too_late(bench: Bench) -> None:
    """The parcel is with the carrier; status 1, and the saga goes on."""
    bench.parcel_past_the_pivot("order-1")

    async def story() -> None:
        async with working(bench.url, bench.shop):
            ran = await bench.beside("cancel", "order-1", *WHY)
            assert ran.status == 1
            assert "cancel: too late" in ran.out
            assert (await bench.beside("cancel", "order-1", *WHY, "--json")).document["verdict"] == "too_late"

    bench.run(story)


def test_who_asks_is_the_systems_user_unless_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator need not type a name; an empty one is refused."""
    bench.pickup("order-1")
    monkeypatch.setenv("LOGNAME", "grace")
    bench.atone("cancel", "order-1", "--reason", "x", "--wait", "0")
    assert bench.atone("show", "order-1", "--json").document["unanswered"][0]["by"] == "grace"
    ran = bench.atone("cancel", "order-1", "--reason", "x", "--by", " ")
    assert ran.status == 2
    assert "--by" in ran.err


@pytest.mark.parametrize("command", [("retry",), ("skip",), ("resolve", "--landed")])
def test_a_step_that_the_saga_does_not_have_is_refused_before_anything_is_written(
    bench: Bench, command: tuple[str, ...]
) -> None:
    """The message lists the steps that there are."""
    bench.parcels("order-1", faults="hand_over")
    ran = bench.atone(command[0], "order-1", "wrap", *command[1:], *WHY)
    assert ran.status == 1
    assert "pack, pay, hand_over, tell" in ran.err
    assert bench.statement("SELECT count(*) FROM requests") == [(0,)]


# resolve


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--landed"),
        (("--landed",), "--result"),
        (("--landed", "--result", "{"), "--result"),
        (("--landed", "--result", "NaN"), "--result"),
        (("--landed", "--result", "[" * 100_000), "--result"),
        (("--not-landed", "--result", "1"), "--landed"),
        (("--landed", "--result", '{"number": 7}', "--wait", "-1"), "--wait"),
        (("--landed", "--result", '{"number": 7}', "--wait", "nan"), "--wait"),
        (("--landed", "--result", '"\udcff"'), "UTF-8"),
    ],
)
def test_a_resolve_that_says_too_little_is_a_usage_error(bench: Bench, arguments: tuple[str, ...], said: str) -> None:
    """Status 2, nothing written, and the message says what to add."""
    bench.parcels("order-1", faults="hand_over")
    ran = bench.atone("resolve", "order-1", "hand_over", *arguments, "--reason", "x")
    assert ran.status == 2
    assert said in ran.err
    assert bench.statement("SELECT count(*) FROM requests") == [(0,)]


def test_an_unknown_pivot_is_resolved_by_a_person(bench: Bench) -> None:
    """The carrier did not answer, is asked by telephone, and the saga completes with what they said."""
    bench.parcels("order-1", faults="hand_over")
    assert bench.atone("list", "--json").lines[0]["status"] == "needs_attention"
    landed = ("resolve", "order-1", "hand_over", "--landed", "--result", '{ "number": 42 }')

    async def story() -> None:
        bench.shop.faults = set()
        async with working(bench.url, bench.shop) as orchestrator:
            ran = await bench.beside(*landed, "--reason", "they have it", "--by", "ada")
            assert ran.status == 0
            assert "resolve: applied" in ran.out
            outcome = await orchestrator.outcome(SendParcel, "order-1", timeout=20)
            assert isinstance(outcome, Completed)
            assert outcome[SendParcel.hand_over].number == 42

    bench.run(story)
    assert bench.shop.calls == ["pack", "pay", "hand_over", "tell"]
    words = bench.atone("show", "order-1", "--payloads").words
    assert "resolve hand_over as landed, asked by ada: they have it" in words
    assert 'result: {"number":42}' in words
    assert "ended completed" in words


def test_a_pivot_that_did_not_land_is_undone(bench: Bench) -> None:
    """They do not have it: what was packed and paid is undone."""
    bench.parcels("order-1", faults="hand_over")

    async def story() -> None:
        async with working(bench.url, bench.shop) as orchestrator:
            ran = await bench.beside("resolve", "order-1", "hand_over", "--not-landed", *WHY)
            assert ran.status == 0
            await orchestrator.outcome(SendParcel, "order-1", timeout=20)

    bench.run(story)
    assert bench.shop.calls == ["pack", "pay", "hand_over", "pay_back", "unpack"]
    assert bench.atone("list", "--json").lines[0]["status"] == "compensated"


def test_a_vouched_result_of_another_type_is_refused(bench: Bench) -> None:
    """Only the worker knows the type; it refuses what the next step could not read."""
    bench.parcels("order-1", faults="hand_over")

    async def story() -> None:
        async with working(bench.url, bench.shop):
            ran = await bench.beside("resolve", "order-1", "hand_over", "--landed", "--result", '"seven"', *WHY)
            assert ran.status == 1
            assert "resolve: refused" in ran.out
            assert "Slip" in ran.out

    bench.run(story)
    assert bench.atone("list", "--json").lines[0]["status"] == "needs_attention"
    assert bench.shop.calls == ["pack", "pay", "hand_over"]


# A compensation that failed


def test_a_failed_compensation_is_retried_when_its_participant_works_again(bench: Bench) -> None:
    """The shelf was locked; it is opened, the step gets another round, and the saga is compensated."""
    bench.parcels("order-1", faults="pay unpack")
    assert bench.atone("list", "--json").lines[0]["status"] == "needs_attention"

    async def story() -> None:
        bench.shop.faults = set()
        async with working(bench.url, bench.shop) as orchestrator:
            ran = await bench.beside("retry", "order-1", "pack", "--reason", "the shelf is open", "--by", "ada")
            assert ran.status == 0
            await orchestrator.outcome(SendParcel, "order-1", timeout=20)

    bench.run(story)
    document = bench.atone("show", "order-1", "--json").document
    assert document["saga"]["status"] == "compensated"
    pack = document["steps"][0]
    assert (pack["status"], pack["compensation_attempts"]) == ("compensated", 2)
    assert "pack: another round of attempts" in bench.atone("show", "order-1").words


def test_a_compensation_that_is_done_by_hand_is_resolved_without_a_result(bench: Bench) -> None:
    """What is vouched for is the undo, which returns nothing."""
    bench.parcels("order-1", faults="pay unpack")

    async def story() -> None:
        async with working(bench.url, bench.shop):
            ran = await bench.beside("resolve", "order-1", "pack", "--landed", *WHY)
            assert ran.status == 0

    bench.run(story)
    assert bench.atone("list", "--json").lines[0]["status"] == "compensated"


def test_a_failed_compensation_is_skipped_with_a_reason(bench: Bench) -> None:
    """The saga ends failed, with who skipped it and why, never compensated."""
    bench.parcels("order-1", faults="pay unpack")

    async def story() -> None:
        async with working(bench.url, bench.shop):
            ran = await bench.beside("skip", "order-1", "pack", "--reason", "the box is lost", "--by", "ada")
            assert ran.status == 0

    bench.run(story)
    document = bench.atone("show", "order-1", "--json").document
    assert document["saga"]["status"] == "failed"
    assert document["ended_because"] == "skipped by ada: the box is lost"
    assert "the box is lost" in bench.atone("show", "order-1").words


# The question on a terminal


class Keyboard(io.StringIO):
    """Somebody at a terminal, with an answer."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("command", [("terminate", "order-1"), ("skip", "order-1", "hand_over")])
@pytest.mark.parametrize(("typed", "status"), [("y\n", 3), ("YES\n", 3), ("n\n", 1), ("\n", 1), ("", 1)])
def test_what_leaves_effects_standing_is_asked_on_a_terminal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], typed: str, status: int
) -> None:
    """Only a clear yes goes on; anything else writes nothing."""
    bench.parcels("order-1", faults="hand_over")
    monkeypatch.setattr("sys.stdin", Keyboard(typed))
    ran = bench.atone(*command, *WHY, "--wait", "0")
    assert ran.status == status
    assert "[y/N]" in ran.err
    assert bench.statement("SELECT count(*) FROM requests") == [(1 if status == 3 else 0,)]


@pytest.mark.parametrize("command", [("terminate", "order-1", "--yes"), ("cancel", "order-1"), ("retry", "order-1")])
def test_nothing_is_asked_with_yes_or_for_a_change_that_undoes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """A keyboard that would say no is not asked."""
    bench.parcels("order-1", faults="hand_over")
    monkeypatch.setattr("sys.stdin", Keyboard("n\n"))
    ran = bench.atone(*command, *WHY, "--wait", "0")
    assert ran.status == 3
    assert "[y/N]" not in ran.err


# The manual

MANUAL = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")


def test_the_manual_names_every_command_status_and_key(bench: Bench) -> None:
    """What is promised to scripts is written down, and what is written down exists."""
    from atone.cli.commands import app

    commands = {name for name in app if not name.startswith("-")}
    assert commands == set(re.findall(r"^\| `atone (\w+)", MANUAL, re.MULTILINE))
    assert {str(status.value) for status in Exit} == set(re.findall(r"^\| (\d+) \|", MANUAL, re.MULTILINE))
    for key in SAGA_KEYS | SHOW_KEYS | STEP_KEYS:
        assert f"`{key}`" in MANUAL, key


def test_the_manual_shows_lines_that_the_commands_write(bench: Bench) -> None:
    """The same story told again has the same words; only names, times and ids differ."""
    bench.parcels("order-1", faults="hand_over")
    explained = bench.atone("explain", "order-1").words.replace("hand_over", "create_shipment")
    for line in ("Needs attention: create_shipment.", "takes it as not landed, and turns the saga back"):
        assert line in MANUAL
        assert line in explained
    assert "Recorded; no worker has answered yet; start one that has this definition. The request stands." in MANUAL
    assert "Recorded; no worker has answered yet; start one that has this definition. The request stands." in (
        bench.atone("retry", "order-1", *WHY, "--wait", "0").out
    )
