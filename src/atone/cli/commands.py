"""The commands of `atone`, their arguments and their help; `run` turns whatever happens into an exit status.

Owns the names that people type. Must not do the work itself: each command opens the store and calls the module that
owns the matter. Called by `atone.cli.main` alone.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from atone._runtime.reader import glimpse
from atone.cli.advice import explain_saga, preview_saga
from atone.cli.asking import Wish, change, checked
from atone.cli.checking import check_targets
from atone.cli.choreographed import look_at, show_sight
from atone.cli.exits import Exit, Stop
from atone.cli.listing import list_sagas
from atone.cli.migrating import Change, migrate
from atone.cli.options import Fleet, Heard, Sent, Where, Which, Why
from atone.cli.output import Output
from atone.cli.place import find_any, find_saga, opened
from atone.cli.posting import Aside, settle_aside, show_outbox
from atone.cli.saga_json import Shown
from atone.cli.serving import serve_all
from atone.cli.timeline import show_saga
from atone.cli.working import Job, work
from atone.errors import AtoneError
from atone.store import Store

_HELP = """Run sagas, look at them and steer them, whoever runs them; a worker need not be running to look.

Every change is a request in the saga's journal, with who asked and why; the worker that has the saga answers it."""

app = App(
    name="atone",
    help=_HELP,
    version=lambda: version("atone"),
    result_action="return_value",
)

_WHERE, _WHICH, _WHY, _FLEET, _HEARD, _SENT = Where(), Which(), Why(), Fleet(), Heard(), Sent()


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an id that the terminal can't show is escaped
    out = Output("--json" in arguments)
    try:
        _refuse_undecodable(arguments)
        result = app(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
        return int(result) if isinstance(result, int) else Exit.DONE
    except CycloptsError as wrong:
        hint = " Options come after the command." if arguments[:1] and arguments[0].startswith("-") else ""
        out.fail("usage", f"{wrong}{hint} See: atone --help")
        return Exit.USAGE
    except Stop as stop:
        out.fail(stop.code, str(stop), **stop.more)
        return stop.status
    except AtoneError as error:
        out.fail(error.code, str(error))
        return Exit.REFUSED
    except BrokenPipeError:
        # Whoever read us has gone, as `head` does; the interpreter must not complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.REFUSED
    except OSError as error:
        out.fail("system", f"{error}. Check that this user may use the store's file and folder.")
        return Exit.REFUSED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


def _refuse_undecodable(arguments: list[str]) -> None:
    """Refuse bytes that are no UTF-8, which the interpreter passes on as lone surrogates: no store can hold them."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise Stop(Exit.USAGE, "usage", f"{argument!r} is not valid UTF-8; write it in UTF-8.") from None


@app.command(name="list")
def list_(
    *,
    where: Where = _WHERE,
    name: Annotated[str | None, Parameter(help="Only sagas of this definition.")] = None,
    status: Annotated[list[str] | None, Parameter(help="Only sagas with this status; may be repeated.")] = None,
    limit: Annotated[int, Parameter(help="How many at most.")] = 100,
    after: Annotated[str | None, Parameter(help="Go on after this saga, the last of the page before.")] = None,
) -> int:
    """List sagas, oldest first."""
    return _with_store(
        where,
        lambda out, store: list_sagas(
            out,
            store,
            now=time.time(),
            tenant=where.tenant,
            name=name,
            statuses=status or (),
            limit=limit,
            after=after,
        ),
    )


@app.command
def show(
    saga_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    where: Where = _WHERE,
    which: Which = _WHICH,
    payloads: Annotated[bool, Parameter(negative=(), help="Show inputs and results too.")] = False,
    verbose: Annotated[bool, Parameter(negative=(), help="Show tracebacks too.")] = False,
) -> int:
    """Show a saga's journal as a timeline, the compensations beside the way forward."""

    async def look(out: Output, store: Store) -> Exit:
        summary, views = await find_any(store, where.tenant, saga_id, which.name)
        if views is not None:
            now = time.time()
            return show_sight(out, await look_at(views, summary.key, now), Shown(payloads, verbose), now)
        return show_saga(out, await glimpse(store, summary.key), Shown(payloads, verbose), time.time())

    return _with_store(where, look)


@app.command(name="explain")
def explain_(
    saga_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    where: Where = _WHERE,
    which: Which = _WHICH,
) -> int:
    """Say why a saga is where it is, what happens next, and what you may do."""

    async def look(out: Output, store: Store) -> Exit:
        found = await glimpse(store, (await find_saga(store, where.tenant, saga_id, which.name)).key)
        return explain_saga(out, found, time.time())

    return _with_store(where, look)


@app.command(name="preview")
def preview_(
    saga_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    where: Where = _WHERE,
    which: Which = _WHICH,
) -> int:
    """Say what a cancel would undo now, in which order, or why it can't."""

    async def look(out: Output, store: Store) -> Exit:
        found = await glimpse(store, (await find_saga(store, where.tenant, saga_id, which.name)).key)
        return preview_saga(out, found, time.time())

    return _with_store(where, look)


@app.command
def retry(
    saga_id: Annotated[str, Parameter(name="ID")],
    step: Annotated[str | None, Parameter(name="STEP", help="Default: all steps that need it.")] = None,
    /,
    *,
    why: Why = _WHY,
    where: Where = _WHERE,
    which: Which = _WHICH,
) -> int:
    """Give a step, or its compensation, another round of attempts at once."""
    return _change(where, Wish("retry", saga_id, which.name, why.reason, why.by, why.wait, step))


@app.command
def resolve(
    saga_id: Annotated[str, Parameter(name="ID")],
    step: Annotated[str, Parameter(name="STEP")],
    /,
    *,
    landed: Annotated[
        bool | None, Parameter(negative="--not-landed", help="Whether it had its effect; one of them is required.")
    ] = None,
    result: Annotated[str | None, Parameter(help="What the action returned, as JSON; with --landed.")] = None,
    why: Why = _WHY,
    where: Where = _WHERE,
    which: Which = _WHICH,
) -> int:
    """Vouch for what an unknown step, or its compensation, did: it landed, or it surely had no effect."""
    wish = Wish("resolve", saga_id, which.name, why.reason, why.by, why.wait, step, landed, result)
    return _change(where, wish)


@app.command
def skip(
    saga_id: Annotated[str, Parameter(name="ID")],
    step: Annotated[str, Parameter(name="STEP")],
    /,
    *,
    yes: Annotated[bool, Parameter(negative=(), help="Don't ask.")] = False,
    why: Why = _WHY,
    where: Where = _WHERE,
    which: Which = _WHICH,
) -> int:
    """Do without a step, or without its compensation: then the saga ends failed, with your reason."""
    return _change(where, Wish("skip", saga_id, which.name, why.reason, why.by, why.wait, step, yes=yes))


@app.command
def cancel(
    saga_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    why: Why = _WHY,
    where: Where = _WHERE,
    which: Which = _WHICH,
) -> int:
    """Undo a saga that has not passed its point of no return."""
    return _change(where, Wish("cancel", saga_id, which.name, why.reason, why.by, why.wait))


@app.command
def terminate(
    saga_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    yes: Annotated[bool, Parameter(negative=(), help="Don't ask.")] = False,
    why: Why = _WHY,
    where: Where = _WHERE,
    which: Which = _WHICH,
) -> int:
    """End a saga as failed, without undoing anything."""
    return _change(where, Wish("terminate", saga_id, which.name, why.reason, why.by, why.wait, yes=yes))


@app.command
def worker(
    *targets: Annotated[str, Parameter(name="TARGET", help="package.module:name of sagas, or of what returns them.")],
    fleet: Fleet = _FLEET,
    heard: Heard = _HEARD,
    sent: Sent = _SENT,
    store: Annotated[str | None, Parameter(env_var="ATONE_STORE", help="Its URL, such as postgresql://...")] = None,
    migrate: Annotated[bool, Parameter(negative=(), help="Bring the tables up to date first.")] = False,
    notify: Annotated[bool, Parameter(help="Hear at once what other processes leave, not at a poll.")] = True,
    codec: Annotated[str | None, Parameter(help="package.module:name of the codec, if there is one.")] = None,
    log_level: Annotated[str, Parameter(help="debug, info, warning or error.")] = "info",
    json: Annotated[bool, Parameter(negative=(), help="Say in JSON what went wrong.")] = False,
) -> int:
    """Run sagas in this process, until SIGTERM or Ctrl-C: what is under way is handed back then, not cancelled."""
    if not targets:
        raise Stop(Exit.USAGE, "usage", "Say what to run. Add: package.module:sagas")
    limits = fleet.limits()
    job = Job(
        targets=targets,
        store=store,
        migrate=migrate,
        notify=notify,
        codec=codec,
        log_level=log_level,
        heard=heard,
        sent=sent,
        limits=limits,
    )
    return asyncio.run(work(job))


@app.command
def outbox(
    *,
    store: Annotated[str | None, Parameter(env_var="ATONE_STORE", help="Its URL, such as sqlite:///orders.db.")] = None,
    limit: Annotated[int, Parameter(help="How many of those that were set aside at most.")] = 100,
    again: Annotated[str | None, Parameter(negative=(), help="Send this one, that was set aside, once more.")] = None,
    drop: Annotated[str | None, Parameter(negative=(), help="Forget this one, that was set aside, for good.")] = None,
    reason: Annotated[str | None, Parameter(help="Why; goes into the log. Required for --again and --drop.")] = None,
    by: Annotated[str | None, Parameter(help="Who asks; goes into the log. Default: your user name.")] = None,
    yes: Annotated[bool, Parameter(negative=(), help="Don't ask before a message is dropped.")] = False,
    json: Annotated[bool, Parameter(negative=(), help="Answer in JSON: one object.")] = False,
) -> int:
    """Say how many messages wait to be published, of all tenants; show, send again or drop those no broker takes."""
    where, wish = Where(store=store, json=json), Aside(again, drop, reason, by, yes)
    if wish.is_asked or reason is not None:
        wish.checked()  # before the store is looked for: a missing reason is the nearer mistake
        return _with_store(where, lambda out, store: settle_aside(out, store, wish))
    return _with_store(where, lambda out, store: show_outbox(out, store, limit=limit))


@app.command
def serve(
    *targets: Annotated[str, Parameter(name="TARGET", help="package.module:name of services and saga views.")],
    heard: Heard = _HEARD,
    log_level: Annotated[str, Parameter(help="debug, info, warning or error.")] = "info",
    json: Annotated[bool, Parameter(negative=(), help="Say in JSON what went wrong.")] = False,
) -> int:
    """Serve participants of choreographies in this process, until SIGTERM or Ctrl-C; what is under way may end."""
    if not targets:
        raise Stop(Exit.USAGE, "usage", "Say what to serve. Add: package.module:services")
    return asyncio.run(serve_all(targets, log_level, heard))


@app.command(name="migrate")
def migrate_(
    *,
    store: Annotated[str | None, Parameter(env_var="ATONE_STORE", help="Its URL, such as postgresql://...")] = None,
    sql: Annotated[bool, Parameter(negative=(), help="Print the script for psql instead.")] = False,
    after: Annotated[int, Parameter(help="With --sql: only the migrations above this number.")] = 0,
    post: Annotated[bool, Parameter(negative=(), help="Also what only fits when no older Atone runs.")] = False,
    roles: Annotated[bool, Parameter(negative=(), help="Also the roles atone_owner, _worker, _reader.")] = False,
    json: Annotated[bool, Parameter(negative=(), help="Answer in JSON.")] = False,
) -> int:
    """Make a store's tables, or bring them up to date; a second time it does nothing."""
    change = Change(store=store, sql=sql, post=post, roles=roles, after=after)
    return asyncio.run(migrate(Output(json), change))


@app.command
def check(
    *targets: Annotated[str, Parameter(name="TARGET", help="package.module, or package.module:name.")],
    json: Annotated[bool, Parameter(negative=(), help="Answer in JSON.")] = False,
) -> int:
    """Say whether sagas and choreographies can work as declared; exit status 1 if anything is found."""
    if not targets:
        raise Stop(Exit.USAGE, "usage", "Say what to check. Add: package.module")
    return check_targets(Output(json), targets)


def _change(where: Where, wish: Wish) -> Exit:
    checked(wish)  # before the store is looked for: a missing reason is the nearer mistake
    return _with_store(where, lambda out, store: change(out, store, where.tenant, wish), notify=True)


def _with_store(where: Where, work: Callable[[Output, Store], Awaitable[Exit]], *, notify: bool = False) -> Exit:
    async def within() -> Exit:
        async with opened(where.store, notify=notify) as store:
            return await work(Output(where.json), store)

    return asyncio.run(within())
