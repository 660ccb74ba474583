"""A TCP proxy that loses what it is told to lose: replies, requests, or the connection itself.

Runs in threads of its own, so that a blocked event loop under test does not stop it. `mode` counts for every byte that
arrives from then on, on connections that are open and on new ones. `losses` is the share of answers that are lost with
their connection while it passes. It must not understand what it carries.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Literal, Self, TypeAlias

Mode: TypeAlias = Literal[
    "pass", "delay_replies", "drop_replies", "drop_requests", "hold_requests", "reset_on_reply", "reset_on_request"
]


class Proxy:
    """Forward the connections to one port of this machine, as `mode` says.

    `hold_requests` keeps what the client sends until `release`, also when the client is gone by then. `lost` counts the
    pieces of answers that the server has sent and the client has never got.
    """

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self.mode: Mode = "pass"
        self.losses = 0.0
        self.lost = 0
        self.delay_seconds = 0.1
        self._dice = random.Random(seed)
        self._upstream = port
        self._held: list[tuple[socket.socket, bytes]] = []
        self._released = threading.Event()
        self._gate = threading.Lock()
        self._open: dict[tuple[socket.socket, socket.socket], int] = {}
        self._threads: set[threading.Thread] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._listener)
        self._released.set()
        while self._threads:
            with self._gate:
                for one in [one for pair in self._open for one in pair]:
                    _end(one)
            for thread in tuple(self._threads):
                thread.join(0.1)
        self._listener.close()

    @property
    def held(self) -> int:
        """How many pieces are held."""
        return len(self._held)

    def release(self) -> None:
        """Send on what was held, and pass from now on."""
        self.mode = "pass"
        for server, data in self._held:
            _send(server, data)
        self._held.clear()
        self._released.set()
        self._released = threading.Event()

    def _begin(self, work: object, *values: object) -> None:
        def run() -> None:
            try:
                work(*values)
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:
                client.close()
                continue
            self._open[(client, server)] = 2
            self._begin(self._requests, client, server)
            self._begin(self._replies, client, server)

    def _finished(self, client: socket.socket, server: socket.socket) -> None:
        """Close both sockets when both directions have ended."""
        with self._gate:
            self._open[(client, server)] -= 1
            if not self._open[(client, server)]:
                del self._open[(client, server)]
                client.close()
                server.close()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        holds: threading.Event | None = None
        while data := _received(client):
            match self.mode:
                case "drop_requests":
                    continue
                case mode if mode == "hold_requests" or (holds is not None and not holds.is_set()):
                    holds = self._released  # what comes after it must not overtake it
                    self._held.append((server, data))
                case "reset_on_request":
                    _reset(client)
                    break
                case _:
                    _send(server, data)
        if holds is None:
            _end(server)
        else:  # the server must not learn that the client is gone before it has the rest
            holds.wait()
            _end(server, socket.SHUT_WR)
        self._finished(client, server)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        while data := _received(server):
            match self.mode:
                case "drop_replies":
                    self.lost += 1
                case mode if mode == "reset_on_reply" or self._dice.random() < self.losses:
                    self.lost += 1
                    _reset(client)
                    break
                case mode:
                    if mode == "delay_replies":
                        time.sleep(self.delay_seconds)
                    _send(client, data)
        _end(client)
        self._finished(client, server)


def _received(one: socket.socket) -> bytes:
    try:
        return one.recv(65536)
    except OSError:
        return b""


def _send(one: socket.socket, data: bytes) -> None:
    try:
        one.sendall(data)
    except OSError:
        pass  # its own reader finds out


def _end(one: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    try:
        one.shutdown(how)
    except OSError:
        pass  # it has ended by itself


def _reset(one: socket.socket) -> None:
    """End a connection so that the other side sees a reset."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        one.shutdown(socket.SHUT_RD)  # wakes who reads it here
    except OSError:
        pass
    one.close()
