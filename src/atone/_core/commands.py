"""What `decide` asks of the shell, in the imperative, and the decision that carries it.

Commands are performed only after the decision's entries are durable. Performing one twice is harmless: an attempt
is recognised by its number. Only the newest decision's commands and `wake_at` count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from atone._core.facts import Operation
from atone._core.journal import Entry
from atone._core.state import SagaState


class Call(NamedTuple):
    """Call the user's code for this attempt; `deadline` is its hard end, epoch seconds."""

    step: str
    operation: Operation
    attempt: int
    deadline: float


@dataclass(frozen=True, slots=True)
class AskCondition:
    """Ask the step's `when` and tell the answer; not durable, asked again after a reload."""

    step: str


class AskMessage(NamedTuple):
    """Ask for a command's message and tell it with `version`; not durable, asked again after a reload."""

    step: str
    operation: Operation
    attempt: int
    version: int


class Send(NamedTuple):
    """Send this message: it goes into the outbox in the very commit that holds its intent."""

    step: str
    operation: Operation
    attempt: int
    deadline: float
    body: bytes


@dataclass(frozen=True, slots=True)
class Alert:
    """Report that a step keeps failing; the saga goes on."""

    step: str
    failures: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Tell whoever waits: the saga is final or needs attention. Nothing runs any more."""


Command: TypeAlias = Call | Send | AskCondition | AskMessage | Alert | Finish


class Decision(NamedTuple):
    """What to write, the saga after it, what to do then, and when to look again (epoch seconds, None: at a fact).

    No entries: nothing changed, nothing is to be committed. `idle`: no call is under way and nothing is asked, so
    the saga needs no owner until `wake_at` or a request; the reply to a command may be awaited.
    """

    entries: tuple[Entry, ...]
    saga: SagaState
    commands: tuple[Command, ...] = ()
    wake_at: float | None = None
    idle: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the saga is final: whatever is told next changes nothing, so nobody needs to own it."""
        return self.saga.status.is_final
