"""The options that commands share, declared once: where, which saga, who changes it, and a worker's bounds.

Owns their names, defaults and help. Must not act on them. Used by `commands` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from cyclopts import Parameter

from atone.cli.exits import Exit, Stop

StoreUrl = Annotated[str | None, Parameter(env_var="ATONE_STORE", help="Its URL, such as sqlite:///orders.db.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Where:
    """Which store, which tenant, and in what form to answer."""

    store: StoreUrl = field(default=None, repr=False)  # it may hold a password
    tenant: Annotated[str, Parameter(help="Whose sagas.")] = "default"
    json: Annotated[bool, Parameter(negative=(), help="Answer in JSON: one document, or one object a line.")] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Which:
    """How to tell sagas with the same id apart."""

    name: Annotated[str | None, Parameter(help="The definition's name, where an id alone is ambiguous.")] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Why:
    """Who asks for a change, why, and how long to wait for the answer."""

    reason: Annotated[str | None, Parameter(help="Why; goes into the journal. Required.")] = None
    by: Annotated[str | None, Parameter(help="Who asks; goes into the journal. Default: your user name.")] = None
    wait: Annotated[float, Parameter(help="Seconds to wait for the answer of the saga's worker.")] = 5.0


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Fleet:
    """The bounds of a worker; what is not given is as `Limits` has it."""

    concurrency: Annotated[int | None, Parameter(help="How many sagas at a time (2000).")] = None
    limit: Annotated[
        list[str] | None,
        Parameter(negative=(), help="NAME=N: at most N sagas of that definition here; may be repeated."),
    ] = None
    threads: Annotated[int | None, Parameter(help="How many plain functions at a time (32).")] = None
    grace: Annotated[float | None, Parameter(help="Seconds that a stop leaves to calls under way (10).")] = None
    lease: Annotated[float | None, Parameter(help="Seconds until others take over from a dead worker (10).")] = None
    stall: Annotated[
        float | None,
        Parameter(help="Seconds that the event loop may stand still before the lease is left to end (30)."),
    ] = None
    poll: Annotated[float | None, Parameter(help="Seconds between two looks for work (0.5).")] = None

    def limits(self) -> dict[str, Any]:
        """Return what was given, as arguments of `Limits`."""
        given = {
            "sagas_in_flight_max": self.concurrency,
            "threads_max": self.threads,
            "grace_seconds": self.grace,
            "lease_seconds": self.lease,
            "loop_stall_seconds": self.stall,
            "poll_seconds": self.poll,
            "sagas_in_flight_of": dict(map(_bound, self.limit)) if self.limit else None,
        }
        return {name: value for name, value in given.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Heard:
    """What hears a worker."""

    metrics_port: Annotated[int | None, Parameter(help="Serve metrics for Prometheus at this port, /metrics.")] = None
    metrics_address: Annotated[str, Parameter(help="Where: it has no password.")] = "127.0.0.1"
    otel: Annotated[bool, Parameter(negative=(), help="Spans and metrics to OpenTelemetry's global providers.")] = False
    events: Annotated[bool, Parameter(negative=(), help="Log each attempt and each end of a saga.")] = False
    log_json: Annotated[bool, Parameter(negative=(), help="Log JSON, one object a line.")] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Sent:
    """What a worker sends, and where."""

    broker: Annotated[
        str | None, Parameter(env_var="ATONE_BROKER", help="Its URL, such as nats://host:4222: messages go there.")
    ] = field(default=None, repr=False)  # it may hold a password
    publish_events: Annotated[
        bool, Parameter(negative=(), help="Publish what happens to each saga, on topics such as atone.saga.completed.")
    ] = False
    topic_prefix: Annotated[str, Parameter(help="What these topics begin with.")] = "atone"


def _bound(text: str) -> tuple[str, int]:
    name, _, most = text.partition("=")
    if not name or not (most.isascii() and most.isdigit() and len(most) <= 9):
        raise Stop(Exit.USAGE, "usage", f"--limit takes NAME=N, not {text!r}. Write for example: --limit PlaceOrder=50")
    return name, int(most)
