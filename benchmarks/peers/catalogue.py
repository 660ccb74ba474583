"""The contenders of a comparison: Atone, its floor, and the peers, each with what it stands on.

Owns the list, and the words with which the page tells how a peer is set up. Must not run anything. Used by
`environments`, `compare` and the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Peer:
    """One peer. `app` is its module in `apps`, `environment` its lock in `requirements/peers`.

    `stands_on` says what keeps its state; `python` is the least version of Python that it takes; `warmup_seconds` is
    how long it runs before it is measured, at least. `worker_per_core` is for a peer whose steps are served by
    processes of their own: one, or one a core. `set_up` is a sentence for the page.
    """

    name: str
    title: str
    app: str
    environment: str
    stands_on: Literal["postgres", "restate", "temporal"]
    set_up: str
    python: tuple[int, int] = (3, 11)
    warmup_seconds: float = 2.0
    worker_per_core: bool = False


PEERS = (
    Peer(
        name="restate",
        title="Restate",
        app="restate_app",
        environment="restate",
        stands_on="restate",
        set_up="single server with its defaults on a new folder; the service under Hypercorn with the settings that "
        "Restate's documentation gives for production, one worker process; requests over connections that stay open, "
        "without an idempotency key",
    ),
    Peer(
        name="restate-workers",
        title="Restate, a worker a core",
        app="restate_app",
        environment="restate",
        stands_on="restate",
        set_up="the same with as many worker processes as cores",
        worker_per_core=True,
    ),
    Peer(
        name="absurd",
        title="Absurd",
        app="absurd_app",
        environment="absurd",
        stands_on="postgres",
        set_up="asynchronous worker and clients in one process; the worker polls every 10 ms instead of every 250; a "
        "client learns of an end by polling too, first after 50 ms, which can't be set",
    ),
    Peer(
        name="dbos",
        title="DBOS",
        app="dbos_app",
        environment="dbos",
        stands_on="postgres",
        set_up="asynchronous workflows and steps, awaited where they are called; its default pool",
    ),
    Peer(
        name="dbos-threads",
        title="DBOS, threads",
        app="dbos_threads_app",
        environment="dbos",
        stands_on="postgres",
        set_up="the same as plain functions, a thread for each saga in flight",
    ),
    Peer(
        name="python-saga-orchestrator",
        title="python-saga-orchestrator",
        app="python_saga_orchestrator_app",
        environment="python-saga-orchestrator",
        stands_on="postgres",
        set_up="a saga runs in the client that starts it; a pool of 20 connections",
        python=(3, 12),
    ),
    Peer(
        name="temporal",
        title="Temporal dev server",
        app="temporal_app",
        environment="temporal",
        stands_on="temporal",
        set_up="`temporal server start-dev` on a file, with a write-ahead log and full synchronisation (faster than "
        "its default journal), its limits for polling raised; made for development, says Temporal: a cluster on a "
        "database was not measured",
        warmup_seconds=4.0,
    ),
)
PEER_BY_NAME = {peer.name: peer for peer in PEERS}
CONTENDERS = ("atone", "floor", *PEER_BY_NAME)
