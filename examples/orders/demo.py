"""The demo: `python -m examples.orders.demo` sends orders through three services, with a crash on the way.

Owns the command line, the folder of the run, and the verdict. Exit status 0 only if every saga has ended and the books
balance; 1 if not, 2 if there was nothing to run. What happens in between is `crash_run`'s on SQLite, `fleet_run`'s on
PostgreSQL, and `choreography.run`'s where the services react to each other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import msgspec

from atone.testing.postgres import NoPostgres, postgres_server
from examples.orders.audit import Folder, read_books, saga_ends
from examples.orders.books import check
from examples.orders.choreography.brokers import BROKERS, NoBroker, broker_url
from examples.orders.choreography.run import ChoreographyRun, CommandsRun
from examples.orders.crash_run import CrashRun
from examples.orders.display import Display, books_text, numbers
from examples.orders.faults import Rates
from examples.orders.fleet_run import FleetRun
from examples.orders.inventory import opening_stock
from examples.orders.order_file import OrderFile, read_orders
from examples.orders.running import Ended, Settings
from examples.orders.service import fault_rates

SHIPPED_ORDERS = Path(__file__).with_name("orders.jsonl")
FAULTS_VARIABLE = "ORDERS_FAULTS"
_BAD_LINES_SHOWN_MAX = 10
# What runs the orders over a broker, by the style's name; None: over HTTP.
_STYLES = {"orchestration": None, "choreography": ChoreographyRun, "commands": CommandsRun}


def main() -> int:
    """Run the demo; return the exit status."""
    options = _command_line().parse_args()
    try:
        file = read_orders(options.orders)
    except OSError as error:
        print(f"The orders can't be read: {error}. Next: name another file with --orders.", file=sys.stderr)
        return 2
    _report_file(options.orders, file)
    if not file.orders:
        print("There is no order to run.", file=sys.stderr)
        return 2
    try:
        with _folder(options.keep) as folder, _store(options, folder) as url:
            return asyncio.run(_demo(options, file, folder, url))
    except (NoPostgres, NoBroker) as error:
        print(f"{error} Next: see examples/orders/README.md.", file=sys.stderr)
        return 2
    except FileExistsError:
        print(f"{options.keep} exists. Next: name a folder that does not.", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except EOFError as error:
        print(f"{error}. Next: what it said on its way out stands above.", file=sys.stderr)
        return 1


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.orders.demo", description="Orders cross three services.")
    parser.add_argument("--orders", type=Path, default=SHIPPED_ORDERS, help="orders as JSON Lines")
    parser.add_argument(
        "--kill-after",
        type=_share,
        nargs="*",
        metavar="SHARE",
        help="kill the orchestrator when this share of the orders has ended; several kill it several times, none never "
        "(default 0.4); over a broker, the four processes in turn (default 0.2 0.4 0.6 0.8)",
    )
    parser.add_argument(
        "--style",
        choices=tuple(_STYLES),
        default="orchestration",
        help="choreography: four services react to each other's events, over a broker; commands: an orchestrator "
        "drives the same services by messages",
    )
    parser.add_argument(
        "--broker",
        choices=BROKERS,
        default="embedded",
        help="for choreography and commands: embedded needs no server, the others are started for the run",
    )
    parser.add_argument(
        "--store",
        choices=("sqlite", "postgres"),
        default="sqlite",
        help="postgres: three `atone worker` processes on a throw-away server; a kill takes one of them",
    )
    parser.add_argument(
        "--drain-after",
        type=_share,
        nargs="*",
        default=[0.6],
        metavar="SHARE",
        help="with postgres: stop a worker with SIGTERM at this share, and start another one",
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed brings other faults")
    parser.add_argument(
        "--faults",
        type=fault_rates,
        default=os.environ.get(FAULTS_VARIABLE, ""),
        help=f"shares of requests, for example lost=0.1,slow=0 (or {FAULTS_VARIABLE}); default {Rates()}",
    )
    parser.add_argument("--inflight", type=int, default=40, help="sagas under way at a time")
    parser.add_argument("--limit-seconds", type=float, default=240.0, help="give up after that long")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="run in this new folder, and leave it there")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


@contextlib.contextmanager
def _folder(keep: Path | None) -> Generator[Folder, None, None]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="atone-orders-", ignore_cleanup_errors=True) as path:
            yield Folder(Path(path))
    else:
        keep.mkdir(parents=True)
        yield Folder(keep)


@contextlib.contextmanager
def _store(options: argparse.Namespace, folder: Folder) -> Generator[str, None, None]:
    """Return where the sagas are kept, or the events go; a server is started for it, and gone afterwards."""
    if _STYLES[options.style] is not None:
        if options.broker != "embedded":
            print(f"starting a server for {options.broker} of its own", file=sys.stderr, flush=True)
        with broker_url(options.broker, folder) as url:
            yield url
        return
    if options.store == "sqlite":
        yield folder.store_url
        return
    print("starting a PostgreSQL of its own", file=sys.stderr, flush=True)
    with postgres_server() as server:
        yield server.url()


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share from 0 to 1")
    return share


def _report_file(path: Path, file: OrderFile) -> None:
    print(f"{len(file.orders)} orders in {path.name}, {len(file.bad_lines)} bad lines", file=sys.stderr)
    for bad in file.bad_lines[:_BAD_LINES_SHOWN_MAX]:
        print(f"  {bad}", file=sys.stderr)
    if len(file.bad_lines) > _BAD_LINES_SHOWN_MAX:
        print(f"  ... and {len(file.bad_lines) - _BAD_LINES_SHOWN_MAX} more", file=sys.stderr)


async def _demo(options: argparse.Namespace, file: OrderFile, folder: Folder, url: str) -> int:
    _stop_on_sigterm()
    shutil.copyfile(options.orders, folder.orders)
    folder.stock.write_bytes(msgspec.json.encode(opening_stock(file.orders)))
    settings = Settings(
        kill_after=_kill_after(options),
        drain_after=tuple(options.drain_after),
        faults=options.faults,
        seed=options.seed,
        inflight=options.inflight,
        limit_seconds=options.limit_seconds,
    )
    began = time.monotonic()
    with Display() as display:
        by_messages = _STYLES[options.style]
        if by_messages is not None:
            ended = await by_messages(settings, folder, url, file.orders, display).run()
        elif options.store == "sqlite":
            ended = await CrashRun(settings, folder, display).run()
        else:
            ended = await FleetRun(settings, folder, url, file.orders, display).run()
    seconds = time.monotonic() - began
    return await _judge(folder, ended, seconds, as_json=options.json)


def _kill_after(options: argparse.Namespace) -> tuple[float, ...]:
    if options.kill_after is not None:
        return tuple(options.kill_after)
    return (0.4,) if _STYLES[options.style] is None else (0.2, 0.4, 0.6, 0.8)


def _stop_on_sigterm() -> None:
    task = asyncio.current_task()
    assert task is not None
    # Windows has no such handler; the children go all the same when their pipes close.
    with contextlib.suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


async def _judge(folder: Folder, ended: Ended, seconds: float, *, as_json: bool) -> int:
    """Look into the books, now that nothing can change them any more, and say what they show."""
    books = read_books(folder, await saga_ends(folder))
    mistakes = [*check(books), *ended.mistakes]
    ends = Counter(books.ends.values())
    if as_json:
        result = {
            "orders": len(books.orders),
            "sagas": ends,
            "kills": ended.kills,
            "left_behind": ended.left_behind,
            "drained": ended.drained,
            "parked": ended.parked,
            "causes": ended.causes,
            **ended.met,
            "mistakes": [str(mistake) for mistake in mistakes],
            "seconds": round(seconds, 1),
        }
        print(json.dumps(result))
    else:
        drained = f", {ended.drained} worker(s) drained" if ended.drained else ""
        print(f"\nThe books after {seconds:.1f} s, {len(ended.kills)} kill(s){drained}, {numbers(ends)}\n")
        print(books_text(books, mistakes))
        print("\n  not completed because of")
        print("\n".join(f"    {count:4} {cause}" for cause, count in sorted(ended.causes.items())))
        print(f"\n  faults on purpose: {numbers(ended.met['faults'])}")
        if ended.met["guard"]:  # participants' own guards are not counted
            print(f"  guards: {numbers(ended.met['guard'])}")
        if ended.table:
            print(f"\n{ended.table}")
    return 1 if mistakes or not ended.in_time else 0


if __name__ == "__main__":
    sys.exit(main())
