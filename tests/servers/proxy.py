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
from types import TracebackType
from typing import Literal, Self, TypeAlias

Mode: TypeAlias = Literal[
    "pass", "drop_replies", "drop_requests", "hold_requests", "reset_on_reply", "reset_on_request"
]


class Proxy:
    """Forward the connections to one port of this machine, as `mode` says.

    `hold_requests` keeps what the client sends until `release`, also when the client is gone by then.
    """

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self.mode: Mode = "pass"
        self.losses = 0.0
        self.lost = 0
        self._dice = random.Random(seed)
        self._upstream = port
        self._held: list[tuple[socket.socket, bytes]] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._listener)
        for one in self._sockets:
            _end(one)
        for thread in self._threads:
            thread.join()
        for one in (self._listener, *self._sockets):
            one.close()

    @property
    def held(self) -> int:
        """How many pieces are held."""
        return len(self._held)

    def release(self) -> None:
        """Send on what was held, and pass from now on."""
        self.mode = "pass"
        for server, data in self._held:
            server.sendall(data)
        self._held.clear()

    def _begin(self, work: object, *values: object) -> None:
        thread = threading.Thread(target=work, args=values, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
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
            self._sockets += [client, server]
            self._begin(self._requests, client, server)
            self._begin(self._replies, client, server)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        holds = False
        while data := _received(client):
            match self.mode:
                case "drop_requests":
                    continue
                case mode if holds or mode == "hold_requests":
                    holds = True  # what comes after it must not overtake it
                    self._held.append((server, data))
                case "reset_on_request":
                    _reset(client)
                    break
                case _:
                    _send(server, data)
        if not holds:  # else the server must not learn that the client is gone before it has the rest
            _end(server)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        while data := _received(server):
            match self.mode:
                case "drop_replies":
                    continue
                case mode if mode == "reset_on_reply" or self._dice.random() < self.losses:
                    self.lost += 1
                    _reset(client)
                    break
                case _:
                    _send(client, data)
        _end(client)


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


def _end(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
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
