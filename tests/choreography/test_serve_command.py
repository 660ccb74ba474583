"""`atone serve`: services and views as a process of their own, until a signal ends it in order."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from atone.cli.commands import run
from atone.saga_view import SagaView
from tests.choreography.shop import ORDERS, PARTICIPANTS, Shop, on_sqlite
from tests.servers.processes import child_process

FOLDER = "ATONE_TEST_SHOP"


def services() -> list[Any]:
    """Return all services of the shop, and the view of it: what the command is given."""
    folder = Path(os.environ[FOLDER])
    broker = f"sqlite:///{folder}/broker.db"
    shop = Shop(on_sqlite(folder), broker)
    return [SagaView(ORDERS, store=broker, broker=broker), *(shop.service(one()) for one in PARTICIPANTS)]


def nothing() -> int:
    """Return what can't be served."""
    return 7


def test_services_run_as_a_process_and_end_in_order_on_a_signal(tmp_path: Path) -> None:
    """An order goes its way; SIGTERM ends the process with status 0."""
    target = f"{__name__}:services"
    environment = {**os.environ, FOLDER: str(tmp_path)}
    command = [sys.executable, "-m", "atone", "serve", target]

    async def main() -> None:
        shop = Shop(on_sqlite(tmp_path), None)
        await shop.create()
        await shop.place("o-1")
        await shop.until("o-1")
        await shop.close()

    with child_process(command, env=environment, cwd=Path(__file__).parents[2]) as process:
        asyncio.run(main())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], "Say what to serve"), ([f"{__name__}:nothing"], "gives nothing to serve but this: int")],
    ids=["nobody", "number"],
)
def test_what_can_t_be_served_is_said(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong target is a wrong usage."""
    assert run(["serve", *arguments]) == 2
    assert words in capsys.readouterr().err
