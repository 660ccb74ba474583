"""Servers that many test modules share: each is started when the first test asks for it, and goes with the session."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

# Whoever starts the suite in the background may have it ignore Ctrl-C, and children would inherit that; tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The server's module imports optional packages, which most test modules do without.


@pytest.fixture(scope="session")
def postgres_bench_of() -> Iterator[Callable[[str], Any]]:
    """Return benches by the names in `tests.servers.postgres.TESTED`; one that is not here is skipped, with words."""
    from tests.servers.older import MISSING
    from tests.servers.postgres import SERVERS, Bench, bench

    running: dict[str, Bench] = {}
    with ExitStack() as stack:

        def started(name: str) -> Bench:
            if name not in SERVERS:
                pytest.skip(MISSING)
            if name not in running:
                running[name] = stack.enter_context(bench(SERVERS[name]))
            return running[name]

        yield started


@pytest.fixture(scope="session")
def postgres_bench(postgres_bench_of: Callable[[str], Any]) -> Any:
    """Return the bench on the newest server here."""
    from tests.servers.postgres import SERVERS

    assert SERVERS, "no PostgreSQL here; requirements/dev.txt brings one as a wheel"
    return postgres_bench_of(next(iter(SERVERS)))
