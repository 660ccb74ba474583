"""The three order services keep the participant's contract: real processes, real HTTP, real databases.

Each rule is asked of every compensatable action (reservations and charges), most also of shipments.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.orders.faults import NO_FAULTS, Fault, Faults, Rates
from tests.e2e.order_service import Service, run, service
from tests.servers.processes import child_process, is_running


@dataclass(frozen=True)
class Kind:
    """What one sort of action needs to be tested like the others."""

    service: str
    path: str
    body: dict[str, Any]
    other_body: dict[str, Any]
    rejected_body: dict[str, Any]
    undo_path: str
    effects: str
    """A query that yields one row per effect: (kind, quantity or amount)."""
    done: tuple[str, int]
    undone: tuple[str, int]


def _lines(*lines: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"sku": sku, "quantity": quantity} for sku, quantity in lines]


_CARD = "4000000000001234"
RESERVATION = Kind(
    service="inventory",
    path="/reservations",
    body={"order_id": "1", "lines": _lines(("CUP", 4))},
    other_body={"order_id": "1", "lines": _lines(("CUP", 5))},
    rejected_body={"order_id": "1", "lines": _lines(("CUP", 4), ("RUG", 2))},
    undo_path="/reservations/release",
    effects="SELECT kind, quantity FROM movements ORDER BY id",
    done=("reserve", 4),
    undone=("release", 4),
)
CHARGE = Kind(
    service="payments",
    path="/charges",
    body={"order_id": "1", "card": _CARD, "amount_cents": 999},
    other_body={"order_id": "1", "card": _CARD, "amount_cents": 1000},
    rejected_body={"order_id": "1", "card": "4000000000000002", "amount_cents": 999},
    undo_path="/charges/refund",
    effects="SELECT kind, amount_cents FROM ledger ORDER BY id",
    done=("charge", 999),
    undone=("refund", 999),
)
KINDS = pytest.mark.parametrize("kind", [RESERVATION, CHARGE], ids=["reservation", "charge"])


def ask(kind: Kind, folder: Path, work: Callable[[Service], Awaitable[None]], rates: Rates = NO_FAULTS) -> None:
    """Run the work against the kind's service."""

    async def main() -> None:
        async with service(kind.service, folder, rates) as running:
            await work(running)

    asyncio.run(main())


@KINDS
def test_a_repeat_gets_the_first_answer_and_has_no_second_effect(kind: Kind, tmp_path: Path) -> None:
    """Same key, same body: the stored reply, byte for byte, even when the fields come in another order."""

    async def work(running: Service) -> None:
        first = await running.post(kind.path, "key", kind.body)
        repeat = await running.post(kind.path, "key", dict(reversed(kind.body.items())))
        assert first.status_code == repeat.status_code == 201
        assert first.content == repeat.content
        assert running.rows(kind.effects) == [kind.done]

    ask(kind, tmp_path, work)


@KINDS
def test_twenty_at_once_under_one_key_have_one_effect(kind: Kind, tmp_path: Path) -> None:
    """The key is inserted before anything is looked up, so that there is no gap between looking and writing."""

    async def work(running: Service) -> None:
        replies = await asyncio.gather(*(running.post(kind.path, "key", kind.body) for _ in range(20)))
        assert {(reply.status_code, reply.content) for reply in replies} == {(201, replies[0].content)}
        assert running.rows(kind.effects) == [kind.done]

    ask(kind, tmp_path, work)


@KINDS
def test_the_same_key_with_another_body_is_refused(kind: Kind, tmp_path: Path) -> None:
    """Answering with the first reply would hide that the second request never happened."""

    async def work(running: Service) -> None:
        await running.post(kind.path, "key", kind.body)
        other = await running.post(kind.path, "key", kind.other_body)
        assert other.status_code == 422
        assert "Idempotency-Key" in other.json()["error"]
        assert running.rows(kind.effects) == [kind.done]

    ask(kind, tmp_path, work)


@KINDS
def test_a_rejection_leaves_nothing_behind_and_is_repeated_as_it_was(kind: Kind, tmp_path: Path) -> None:
    """Not even the lines of an order that were in stock stay reserved."""

    async def work(running: Service) -> None:
        first = await running.post(kind.path, "key", kind.rejected_body)
        repeat = await running.post(kind.path, "key", kind.rejected_body)
        assert first.status_code in {402, 409}
        assert list(first.json()) == ["rejected"]
        assert (repeat.status_code, repeat.content) == (first.status_code, first.content)
        assert running.rows(kind.effects) == []

    ask(kind, tmp_path, work)


@KINDS
def test_a_compensation_undoes_the_action_once_however_often_it_comes(kind: Kind, tmp_path: Path) -> None:
    """A repeat under its own key gets the first answer; one under a new key finds nothing left to undo."""

    async def work(running: Service) -> None:
        await running.post(kind.path, "key", kind.body)
        first = await running.post(kind.undo_path, "undo", {"action_key": "key"})
        repeat = await running.post(kind.undo_path, "undo", {"action_key": "key"})
        another = await running.post(kind.undo_path, "undo again", {"action_key": "key"})
        assert [reply.status_code for reply in (first, repeat, another)] == [200, 200, 200]
        assert [reply.json() for reply in (first, repeat, another)] == [
            {"undone": True},
            {"undone": True},
            {"undone": False},
        ]
        assert running.rows(kind.effects) == [kind.done, kind.undone]

    ask(kind, tmp_path, work)


@KINDS
def test_an_action_that_arrives_after_its_compensation_is_refused(kind: Kind, tmp_path: Path) -> None:
    """The compensation of an action never seen succeeds and leaves a tombstone; the late action has no effect."""

    async def work(running: Service) -> None:
        undo = await running.post(kind.undo_path, "undo", {"action_key": "key"})
        late = await running.post(kind.path, "key", kind.body)
        assert (undo.status_code, undo.json()) == (200, {"undone": False})
        assert late.status_code == 409
        assert "rejected" not in late.json()
        assert running.rows(kind.effects) == []

    ask(kind, tmp_path, work)


@KINDS
def test_a_repeat_that_arrives_after_the_compensation_is_refused(kind: Kind, tmp_path: Path) -> None:
    """The first answer said "done"; after the undo this would be a lie."""

    async def work(running: Service) -> None:
        await running.post(kind.path, "key", kind.body)
        await running.post(kind.undo_path, "undo", {"action_key": "key"})
        late = await running.post(kind.path, "key", kind.body)
        assert late.status_code == 409
        assert running.rows(kind.effects) == [kind.done, kind.undone]

    ask(kind, tmp_path, work)


@KINDS
def test_compensating_a_rejected_action_undoes_nothing(kind: Kind, tmp_path: Path) -> None:
    """A rejection had no effect, so there is nothing to give back."""

    async def work(running: Service) -> None:
        await running.post(kind.path, "key", kind.rejected_body)
        undo = await running.post(kind.undo_path, "undo", {"action_key": "key"})
        assert (undo.status_code, undo.json()) == (200, {"undone": False})
        assert running.rows(kind.effects) == []

    ask(kind, tmp_path, work)


@KINDS
def test_an_action_and_its_compensation_may_not_share_a_key(kind: Kind, tmp_path: Path) -> None:
    """With one key for both, the compensation would get the action's stored reply and undo nothing."""

    async def work(running: Service) -> None:
        await running.post(kind.path, "key", kind.body)
        after = await running.post(kind.undo_path, "key", {"action_key": "key"})
        before = await running.post(kind.undo_path, "other", {"action_key": "other"})
        assert (after.status_code, before.status_code) == (422, 422)
        assert running.rows(kind.effects) == [kind.done]
        assert running.rows("SELECT * FROM undone") == []

    ask(kind, tmp_path, work)


@KINDS
def test_the_probe_tells_what_landed_and_changes_nothing(kind: Kind, tmp_path: Path) -> None:
    """Never seen, landed, rejected, undone: only one of the four has landed."""

    async def probe(running: Service, key: str) -> Any:
        return (await running.http.get("/calls", params={"key": key})).json()

    async def work(running: Service) -> None:
        nothing = {"landed": False, "reply": None}
        assert await probe(running, "key") == nothing
        reply = await running.post(kind.path, "key", kind.body)
        await running.post(kind.path, "rejected", kind.rejected_body)
        assert await probe(running, "key") == {"landed": True, "reply": reply.json()}
        assert await probe(running, "rejected") == nothing
        await running.post(kind.undo_path, "undo", {"action_key": "key"})
        assert await probe(running, "key") == nothing
        assert running.rows("SELECT key FROM replies ORDER BY key") == [("key",), ("rejected",), ("undo",)]

    ask(kind, tmp_path, work)


@KINDS
@pytest.mark.parametrize(
    ("headers", "content", "reason"),
    [
        ({}, b"{}", "Idempotency-Key"),
        ({"Idempotency-Key": "key"}, b"one cup", "JSON"),
        ({"Idempotency-Key": "key"}, b'{"order_id": "1"}', "missing required field"),
        ({"Idempotency-Key": "key"}, b"[" * 60_000, "body"),
        ({"Idempotency-Key": "key"}, b" " * 300_000, "longer than"),
    ],
    ids=["no key", "not JSON", "a field missing", "too deep", "too long"],
)
def test_a_request_nobody_can_read_is_the_callers_mistake(
    kind: Kind, tmp_path: Path, headers: dict[str, str], content: bytes, reason: str
) -> None:
    """The answer is a 400 that says why, and the key stays free."""

    async def work(running: Service) -> None:
        reply = await running.http.post(kind.path, content=content, headers=headers)
        assert reply.status_code == 400
        assert reason in reply.json()["error"]
        assert (await running.post(kind.path, "key", kind.body)).status_code == 201

    ask(kind, tmp_path, work)


@KINDS
def test_what_was_answered_survives_a_kill(kind: Kind, tmp_path: Path) -> None:
    """After SIGKILL and a new start, a repeat still gets the first answer and no second effect."""

    async def work() -> None:
        async with service(kind.service, tmp_path) as running:
            first = await running.post(kind.path, "key", kind.body)
            os.kill(running.pid, signal.SIGKILL)
        async with service(kind.service, tmp_path) as again:
            repeat = await again.post(kind.path, "key", kind.body)
            assert repeat.content == first.content
            assert again.rows(kind.effects) == [kind.done]

    run(work)


def test_stock_comes_back_and_never_goes_below_zero(tmp_path: Path) -> None:
    """Ten cups: four and four can be set aside, then four are too many until four come back."""

    async def work(running: Service) -> None:
        replies = [await running.post("/reservations", f"key {n}", RESERVATION.body) for n in range(3)]
        assert [reply.status_code for reply in replies] == [201, 201, 409]
        assert replies[2].json() == {"rejected": "out of stock: CUP"}
        await running.post("/reservations/release", "undo", {"action_key": "key 0"})
        assert (await running.post("/reservations", "key 3", RESERVATION.body)).status_code == 201
        assert running.rows("SELECT opening, on_hand FROM stock WHERE sku = 'CUP'") == [(10, 2)]

    ask(RESERVATION, tmp_path, work)


def test_a_shipment_and_its_confirmation_happen_once(tmp_path: Path) -> None:
    """Shipping has no undo, but honours keys like the others, and a key of one action is not one of the other."""

    async def work() -> None:
        async with service("shipping", tmp_path) as running:
            shipment = {"order_id": "1", "reservation_id": "r", "payment_id": "p"}
            confirmation = {"order_id": "1", "shipment_id": "shipment-1", "customer": "Ada"}
            for _ in range(2):
                assert (await running.post("/shipments", "ship", shipment)).json() == {"shipment_id": "shipment-1"}
                assert (await running.post("/confirmations", "tell", confirmation)).status_code == 201
            assert (await running.post("/confirmations", "ship", confirmation)).status_code == 422
            assert running.rows("SELECT order_id FROM shipments") == [("1",)]
            assert running.rows("SELECT order_id FROM confirmations") == [("1",)]

    run(work)


def _always(fault: str, slow_seconds: float = 0.0) -> Rates:
    return Rates.parse(f"unavailable=0,late=0,slow=0,lost=0,slow_seconds={slow_seconds},{fault}=1")


def test_unavailable_means_no_effect(tmp_path: Path) -> None:
    """A 503 comes before anything was tried."""

    async def work(running: Service) -> None:
        assert (await running.post(CHARGE.path, "key", CHARGE.body)).status_code == 503
        assert running.rows("SELECT * FROM replies") == []

    ask(CHARGE, tmp_path, work, _always("unavailable"))


def test_a_lost_reply_means_an_effect_and_not_a_byte_of_answer(tmp_path: Path) -> None:
    """The caller sees a cut connection, the ledger the charge."""

    async def work(running: Service) -> None:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await running.post(CHARGE.path, "key", CHARGE.body)
        assert running.rows(CHARGE.effects) == [CHARGE.done]

    ask(CHARGE, tmp_path, work, _always("lost"))


def test_a_slow_reply_comes_after_an_effect_that_is_there_already(tmp_path: Path) -> None:
    """The caller gives up; the probe, which is never slow, says that it landed."""

    async def work(running: Service) -> None:
        asking = asyncio.create_task(running.post(CHARGE.path, "key", CHARGE.body))
        while not (await running.http.get("/calls", params={"key": "key"})).json()["landed"]:
            assert not asking.done()
        asking.cancel()
        assert running.rows(CHARGE.effects) == [CHARGE.done]

    ask(CHARGE, tmp_path, work, _always("slow", slow_seconds=3))


def test_a_late_effect_is_refused_when_the_compensation_was_faster(tmp_path: Path) -> None:
    """The caller gave up on the charge and refunded it; when the charge is carried out at last, it has no effect."""

    rates = Rates(unavailable=0, late=0.5, slow=0, lost=0, slow_seconds=3)
    keys = [f"key {number}" for number in range(100)]
    late_key = next(key for key in keys if Faults(rates, seed=1).draw(key) is Fault.LATE)
    prompt_key = next(key for key in keys if Faults(rates, seed=1).draw(key) is None)

    async def work(running: Service) -> None:
        charging = asyncio.create_task(running.post(CHARGE.path, late_key, CHARGE.body))
        while not (await running.http.get("/counts")).json()["faults"]:
            assert not charging.done()
        undo = await running.post(CHARGE.undo_path, prompt_key, {"action_key": late_key})
        assert (undo.status_code, undo.json()) == (200, {"undone": False})
        assert not charging.done()
        assert (await charging).status_code == 409
        assert running.rows(CHARGE.effects) == []

    ask(CHARGE, tmp_path, work, rates)


def test_the_same_seed_meets_the_same_faults(tmp_path: Path) -> None:
    """Two services asked alike fail alike, and every kind of fault is among them."""

    async def faults_met(folder: Path) -> tuple[list[int], Any]:
        async with service("payments", folder, Rates(0.2, 0.2, 0.2, 0.2, slow_seconds=0)) as running:
            statuses = [await _status(running, f"key {number}") for number in range(60)]
            return statuses, (await running.http.get("/counts")).json()["faults"]

    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()

    async def work() -> None:
        first, second = await faults_met(folders[0]), await faults_met(folders[1])
        assert first == second
        assert first[1].keys() == {"unavailable", "late", "slow", "lost"}

    run(work)


async def _status(running: Service, key: str) -> int:
    try:
        return (await running.post(CHARGE.path, key, CHARGE.body)).status_code
    except httpx.RemoteProtocolError:
        return 0


@pytest.mark.parametrize("text", ["lots=1", "lost=-0.1", "lost=0.6,slow=0.6", "lost=often", "lost"])
def test_fault_rates_that_make_no_sense_are_refused(text: str) -> None:
    """A slip on the command line is an error, not a demo without faults."""
    with pytest.raises(ValueError, match=r"fault|float"):
        Rates.parse(text)


def test_a_service_goes_when_its_parent_is_killed(tmp_path: Path) -> None:
    """The parent gets SIGKILL and can tidy nothing up; its pipe closes, and the service ends by itself."""
    starter = (
        "import subprocess, sys, time\n"
        "service = subprocess.Popen([sys.executable, '-m', 'examples.orders.payments', '--stop-with-stdin',"
        " '--database', sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "service.stdout.readline()\n"
        "print(service.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", starter, str(tmp_path / "payments.db")]
    with child_process(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    # The test's own time limit is the only clock here.
    while is_running(pid):
        os.sched_yield()
