"""One HTTP service around a participant: routes, idempotency header, faults, start and stop.

Owns the wire rules that all three services share. A service adds its tables, its effects and their undos, nothing else.
Business decisions are not here, and neither is the guard (`participant`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from atone.errors import MessageError
from atone.integrations.fastapi import saga_call
from examples.orders.children import when_stdin_closes
from examples.orders.faults import CuttableProtocol, Faults, Rates
from examples.orders.participant import Call, KeyReused, Participant, Reply, Undo

F = TypeVar("F")
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
BODY_BYTES_MAX = 256 * 1024
_DRAIN_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Action(Generic[F]):
    """POST `path` with a body of type `form` has an effect; `undo_path` takes it back if there is an `undo`."""

    path: str
    form: type[F]
    effect: Callable[[sqlite3.Connection, str, F], object]
    undo_path: str = ""
    undo: Undo | None = None


class UndoForm(msgspec.Struct, frozen=True):
    """A compensation names the action by the key that the action had."""

    action_key: str


class BadRequest(Exception):
    """The caller's mistake, seen before anything was tried."""


def build_app(participant: Participant, faults: Faults, actions: Sequence[Action[Any]]) -> Starlette:
    """Return the service: one route per action and compensation, the probe, and the counts."""
    routes = [Route(action.path, _action_endpoint(participant, faults, action), methods=["POST"]) for action in actions]
    routes += [
        Route(action.undo_path, _undo_endpoint(participant, faults, action, action.undo), methods=["POST"])
        for action in actions
        if action.undo is not None
    ]
    routes += [Route("/calls", _probe_endpoint(participant)), Route("/counts", _counts_endpoint(participant, faults))]
    return Starlette(routes=routes, exception_handlers=_ERRORS)


def _action_endpoint(participant: Participant, faults: Faults, action: Action[Any]) -> Endpoint:
    async def act(request: Request) -> Response:
        call, form = await _read(request, action.form)

        async def answer() -> Response:
            return _response(await participant.act(call, lambda tx: action.effect(tx, call.key, form)))

        return await faults.around(call.key, answer)

    return act


def _undo_endpoint(participant: Participant, faults: Faults, action: Action[Any], undo: Undo) -> Endpoint:
    async def compensate(request: Request) -> Response:
        call, form = await _read(request, UndoForm)

        async def answer() -> Response:
            reply = await participant.compensate(call, action=action.path, action_key=form.action_key, undo=undo)
            return _response(reply)

        return await faults.around(call.key, answer)

    return compensate


def _probe_endpoint(participant: Participant) -> Endpoint:
    async def probe(request: Request) -> Response:
        reply = await participant.find(request.query_params.get("key", ""))
        landed = reply is not None and reply.landed
        return JSONResponse({"landed": landed, "reply": json.loads(reply.body) if reply and landed else None})

    return probe


def _counts_endpoint(participant: Participant, faults: Faults) -> Endpoint:
    async def counts(_: Request) -> Response:
        return JSONResponse({"faults": faults.met, "guard": participant.met})

    return counts


async def _read(request: Request, form: type[F]) -> tuple[Call, F]:
    caller = await saga_call(request)
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise BadRequest(f"the body is longer than {BODY_BYTES_MAX} bytes")
    try:
        wanted = msgspec.json.decode(body, type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not what this address takes: {error}") from None
    # Encoded anew, so that white space and the order of the fields make no other request of it.
    call = Call(
        operation=request.url.path,
        key=caller.idempotency_key,
        request=msgspec.json.encode(wanted),
        saga_id=caller.saga_id or "",
    )
    return call, wanted


def _say(status: int) -> Callable[[Request, Exception], Response]:
    return lambda _, error: JSONResponse({"error": str(error)}, status)


# Nobody hears the last one: the caller went before it had said what it wanted.
_ERRORS = {MessageError: _say(400), KeyReused: _say(422), BadRequest: _say(400), ClientDisconnect: _say(400)}


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, media_type="application/json")


def fault_rates(text: str) -> Rates:
    """Read fault rates from a command line, with the reason if they make no sense."""
    try:
        return Rates.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def command_line(description: str) -> argparse.ArgumentParser:
    """Return the options that every service takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--faults", type=fault_rates, default=Rates(), help="for example lost=0.1,slow=0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--stop-with-stdin", action="store_true", help="stop when standard input is closed")
    return parser


def serve(settings: argparse.Namespace, schema: str, actions: Sequence[Action[Any]]) -> None:
    """Serve on the loopback until a signal comes or standard input closes; print the port as a line of JSON first."""
    with Participant(settings.database, schema) as participant, socket.socket() as listener:
        app = build_app(participant, Faults(settings.faults, settings.seed), actions)
        config = uvicorn.Config(
            app,
            http=CuttableProtocol,
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        server = uvicorn.Server(config)
        if settings.stop_with_stdin:
            when_stdin_closes(lambda: setattr(server, "should_exit", True), exit_after_seconds=_DRAIN_SECONDS + 2)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", settings.port))
        listener.listen(1024)
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(server.serve(sockets=[listener]))
