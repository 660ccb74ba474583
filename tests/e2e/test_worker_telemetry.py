"""`atone worker` with its metrics, events and JSON switched on, as an operator would look at them."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from pathlib import Path

from atone import Completed, Orchestrator
from tests.servers.deliveries import Fetch, Parcel
from tests.servers.workers import TARGETS, atone, worker


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_worker_shows_its_metrics_and_logs_events_as_json(tmp_path: Path) -> None:
    """One saga: it is on the page, and each line of the log is an object; after the stop nobody answers the port."""
    url = f"sqlite:///{tmp_path / 'sagas.db'}"
    port = str(_free_port())
    options = ("--migrate", "--metrics-port", port, "--events", "--log-json", "--otel")

    async def executed() -> object:
        async with Orchestrator(url, sagas=[Fetch()], runs=False) as starter:
            return await starter.execute(Fetch, Parcel(), saga_id="1", timeout=60)

    with worker(url, tmp_path, *options, sagas="one") as one:
        assert isinstance(asyncio.run(executed()), Completed)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        assert one.stopped() == 0
        lines = [json.loads(line) for line in one.log.splitlines()]
    assert 'atone_sagas_settled_total{outcome="completed",saga="Fetch"} 1.0' in page
    assert "atone_commit_duration_seconds_bucket" in page
    ended = next(line for line in lines if line.get("outcome") == "succeeded")
    assert (ended["logger"], ended["saga_id"], ended["step"], ended["attempt"]) == ("atone.events", "1", "fetch", 1)


def test_a_port_that_is_taken_ends_the_worker_at_its_start(tmp_path: Path) -> None:
    """One line that says which, and nothing is run."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        url = f"sqlite:///{tmp_path / 'sagas.db'}"
        said = atone(tmp_path, "worker", f"{TARGETS}:one", "--store", url, "--migrate", "--metrics-port", port)
    assert said.returncode == 2
    assert f"Metrics can't be served at 127.0.0.1:{port}" in said.stderr
    assert "Traceback" not in said.stderr
