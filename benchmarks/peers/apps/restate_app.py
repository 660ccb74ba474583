"""The client of the order saga on Restate: HTTP with connections that stay open, so that asking costs little.

Runs in the environment of `restate`; the sagas run in `restate_service`, whose processes are this task's helpers. Must
not be imported elsewhere. Started by `benchmarks.compare`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from benchmarks.peers import shop
from benchmarks.peers.task import finish, judge, measured, saga_id, this_task


class Connection:
    """One client's connection to the server's door for requests."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.partition(":")
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: object) -> Any:
        """Send a request and return the answer."""
        if self._ends is None:
            self._ends = await asyncio.open_connection(self._host, int(self._port))
        reader, writer = self._ends
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(field.split(":")[1]) for field in fields if field.startswith("content-length:"))
        answer = await reader.readexactly(length)
        if status.split()[1] != "200":
            raise SystemExit(f"Restate answered {status}: {answer!r}")
        return json.loads(answer)


async def main() -> None:
    task = this_task()
    connections = [Connection(task.places["ingress"]) for _ in range(task.inflight)]

    async def run_one(client: int, number: int) -> None:
        request = {"order_id": saga_id(client, number), "order": shop.AN_ORDER, "declined": task.declined}
        judge(task, await connections[client].post("/Orders/place", request))

    # The services are called in other processes, so that the answers have to speak for them.
    finish(task, await measured(task, run_one), "restate-sdk", "hypercorn", books=False)


asyncio.run(main())
