"""The README's words and code are true: the promise word for word, and the order saga runs as printed."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from atone import Orchestrator, Reject
from atone._core.event_checks import CODES
from atone.cli.targets import sagas_of
from atone.errors import UnknownSaga
from atone.serving import start

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

PROMISE = (
    "Atone calls every action at least once and journals each outcome. With Atone's barrier in the participant's "
    "own transaction, every effect happens effectively once, and none after its compensation. With only an "
    "honoured idempotency key, no effect happens twice, but a delayed call may still land after its compensation;"
    " Atone waits for the attempt's hard deadline plus `late_grace` before it compensates an unknown step, and "
    "says so. A saga always ends *completed*, *compensated*, or visibly *in need of attention*; never silently in"
    ' between. Atone never says "exactly-once delivery".'
)


class Services:
    """All three participants in one object, with a log of what they were asked."""

    def __init__(self, declined: bool) -> None:
        self.declined = declined
        self.log: list[str] = []

    async def reserve(self, sku: str, *, key: str) -> str:
        self.log.append("reserve")
        return f"reservation of {sku}"

    async def release(self, *, reservation_key: str, key: str) -> None:
        assert reservation_key != key
        self.log.append("release")

    async def charge(self, cents: int, *, key: str) -> str:
        self.log.append("charge")
        if self.declined:
            raise Reject("card declined")
        return f"payment of {cents}"

    async def refund(self, *, payment_key: str, key: str) -> None:
        self.log.append("refund")

    async def create(self, order: str, reservation: str, *, key: str) -> str:
        self.log.append("create")
        return f"shipment of {order}"

    async def notify(self, shipment: str, *, key: str) -> None:
        self.log.append("notify")


def python_of(page: str) -> list[str]:
    """Return the Python blocks of a page; a page without any is a mistake."""
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    return [str(block) for block in blocks]


def imported(folder: Path, name: str, code: str) -> Any:
    """Import a piece of text as a module."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("declined", "says", "log"),
    [
        (False, "shipped: shipment of 7", ["reserve", "charge", "create", "notify"]),
        (True, "undone: process_payment: card declined", ["reserve", "charge", "release"]),
    ],
)
def test_the_code_of_the_readme_runs_as_printed(
    declined: bool, says: str, log: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block is executed as it stands, against services that log what they are asked."""
    monkeypatch.chdir(tmp_path)
    readme = imported(tmp_path, "readme_block", python_of(README)[0])
    services = Services(declined)

    said = asyncio.run(readme.place(readme.Order("7", "shoe", 4200), services, services, services))

    assert said == says
    assert services.log == log


def test_the_choreography_of_the_readme_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two services with a database each, a view beside them: paid, and undone when the card declines."""
    monkeypatch.chdir(tmp_path)
    readme = imported(tmp_path, "readme_choreography", python_of(README)[1])

    @contextmanager
    def database(name: str) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(f"{name}.db", timeout=20, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    with database("stock") as connection:
        connection.execute("CREATE TABLE stock (sku TEXT, pieces INTEGER)")
        connection.execute("INSERT INTO stock VALUES ('cup', 5)")
    with database("ledger") as connection:
        connection.execute("CREATE TABLE ledger (saga TEXT, cents INTEGER)")

    async def ended(view: Any, saga_id: str) -> str:
        while True:
            with suppress(UnknownSaga):
                found = await view.of(saga_id)
                if found.ended_at is not None:
                    return str(found.status)
            await asyncio.sleep(0.01)

    async def main() -> None:
        async with AsyncExitStack() as stack:
            view = await readme.shop(stack, partial(database, "stock"), partial(database, "ledger"))
            assert await ended(view, "order-7") == "completed"
            with database("stock") as connection:
                placed = readme.OrderPlaced("cup", 200_000)
                await start(readme.ORDERS, connection, placed, saga_id="order-8")
            assert await ended(view, "order-8") == "compensated"

    asyncio.run(main())
    with database("stock") as connection:
        assert connection.execute("SELECT pieces FROM stock").fetchall() == [(4,)]
    with database("ledger") as connection:
        assert connection.execute("SELECT * FROM ledger").fetchall() == [("order-7", 4200)]


def test_the_guide_s_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's blocks, one after the other, are one module; its last block runs what the others define."""
    monkeypatch.chdir(tmp_path)
    blocks = python_of((ROOT / "docs" / "guide.md").read_text(encoding="utf-8"))

    guide = imported(tmp_path, "guide_blocks", "\n\n".join(blocks))

    assert asyncio.run(guide.main()) == ["completed", "compensated", "needs_attention", "compensated"]
    assert guide.drawn().startswith("flowchart")
    asyncio.run(watched(guide))
    assert asyncio.run(guide.by_message()) == ["completed", "compensated"]


def test_the_choreography_page_s_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks are one module: one choreography is checked and drawn, another one is served, and seen."""
    monkeypatch.chdir(tmp_path)
    blocks = python_of((ROOT / "docs" / "choreography.md").read_text(encoding="utf-8"))
    page = imported(tmp_path, "choreography_blocks", "\n\n".join(blocks))

    assert page.checked() == []
    assert page.drawn().startswith("flowchart")
    assert asyncio.run(page.main()) == ["compensated", "completed", "completed"]


def test_the_choreography_page_names_every_finding() -> None:
    """The table of findings and the checks have the same codes."""
    page = (ROOT / "docs" / "choreography.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page.partition("## Findings")[2], re.MULTILINE)
    assert {code for row in rows for code in re.findall(r"`(\w+)`", row)} == set(CODES)


def test_the_fleet_page_s_code_runs(postgres_bench: Any, tmp_path: Path) -> None:
    """Its blocks are one module: a worker and a starter on one PostgreSQL, and the target as the command takes it."""
    place = postgres_bench.place()
    url = f"{postgres_bench.worker_url}?schema={place.schema}"
    blocks = python_of((ROOT / "docs" / "fleet.md").read_text(encoding="utf-8"))
    fleet = imported(tmp_path, "fleet_blocks", "\n\n".join(blocks))

    async def main() -> None:
        done = asyncio.Event()
        working = asyncio.ensure_future(fleet.work(url, done))
        assert await fleet.invite(url, "ann") == "sent to ann"
        done.set()
        await working
        async with AsyncExitStack() as stack:
            (saga,) = await sagas_of("fleet_blocks:sagas", stack)
            assert isinstance(saga, fleet.Invite)

    asyncio.run(main())


async def watched(guide: Any) -> None:
    """Watch a saga that is over: one look, its end."""
    async with Orchestrator("sqlite:///trips.db", sagas=[guide.BookTrip(guide.Agency())]) as orchestrator:
        assert await guide.watched(orchestrator, "ann-1") == ["completed"]


def test_the_promise_stands_word_for_word() -> None:
    """Every word of the promise is in the README."""
    quoted = " ".join(line.removeprefix(">").strip() for line in README.splitlines() if line.startswith(">"))
    assert PROMISE in quoted


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/choreography.md",
        "docs/command-line.md",
        "docs/fleet.md",
        "docs/participants.md",
        "docs/telemetry.md",
    ],
)
def test_links_lead_to_files(page: str) -> None:
    """A relative link in the front pages points to something that exists."""
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = [to for to in re.findall(r"\]\(([^)#:]+)\)", text) if not (ROOT / page).parent.joinpath(to).exists()]
    assert missing == []
