"""What can have happened, in the past tense: the shell tells `decide` one of these at a time.

A fact about an attempt names step, operation and attempt number, so a duplicate or a late one is recognised.
Facts say what was seen, never what should follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias


class Operation(StrEnum):
    """What is called for a step. Action and compensation have effects and own keys; a probe only asks."""

    # An enum's own hash is Python code, and operations are looked up several times a turn.
    __hash__ = str.__hash__

    ACTION = "action"
    COMPENSATION = "compensation"
    PROBE = "probe"


# A member is looked up by the enum's own code at every use, so whatever each turn passes uses these.
ACTION = Operation.ACTION
COMPENSATION = Operation.COMPENSATION
PROBE = Operation.PROBE


class Landed(StrEnum):
    """What a probe found out."""

    LANDED = "landed"
    NOT_LANDED = "not_landed"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True)
class Problem:
    """An exception as text: kept for people, never raised again."""

    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    @property
    def reason(self) -> str:
        """What a person wants to read of a rejection: its own words, if it has any."""
        return self.message or self.type


class StartRequested(NamedTuple):
    """Somebody asked for a new saga. Told once, when there is no saga yet; `trace` is the asker's, as text."""

    # Like the next two in nearly every saga, hence a named tuple: a frozen dataclass sets each field by a call.

    tenant: str
    saga_id: str
    input: bytes
    trace: str | None = None


class Succeeded(NamedTuple):
    """The attempt returned; `result` is its encoded payload (of a compensation: ignored)."""

    step: str
    operation: Operation
    attempt: int
    result: bytes


class Rejected(NamedTuple):
    """The attempt was refused for good, surely without effect."""

    step: str
    operation: Operation
    attempt: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class CameToNothing:
    """The attempt ended without an answer that settles it: it may have had its effect.

    `retry_after` overrides the policy's delay, in seconds; `repeatable` is False if another call can't end better.
    """

    step: str
    operation: Operation
    attempt: int
    problem: Problem
    retry_after: float | None = None
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Lost:
    """The process that ran the attempt is gone: nobody will ever say how it ended."""

    step: str
    operation: Operation
    attempt: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """This worker stopped the attempt in order to shut down; the same attempt is due again at once, elsewhere."""

    step: str
    operation: Operation
    attempt: int


@dataclass(frozen=True, slots=True)
class Impossible:
    """The attempt could not be made at all (its input can't be decoded, its code is missing); surely no effect."""

    step: str
    operation: Operation
    attempt: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe answered; `result` is the action's encoded result if it landed."""

    step: str
    attempt: int
    answer: Landed
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class ConditionTold:
    """A step's `when` answered."""

    step: str
    runs: bool


@dataclass(frozen=True, slots=True)
class ConditionFailed:
    """A step's `when` raised."""

    step: str
    problem: Problem


class Built(NamedTuple):
    """The encoded message of one command."""

    step: str
    operation: Operation
    body: bytes


@dataclass(frozen=True, slots=True)
class MessagesBuilt:
    """Messages that were asked for; `version` is the saga's at that moment, for they say what it knew then."""

    version: int
    built: tuple[Built, ...]


@dataclass(frozen=True, slots=True)
class MessageFailed:
    """A command's message can't be built or sent; surely no effect, for nothing was sent. `version` as above."""

    version: int
    step: str
    operation: Operation
    problem: Problem


@dataclass(frozen=True, slots=True)
class RequestUnfit:
    """A request can't be used (an event's payload is not of its declared type)."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class RequestsUnfit:
    """All that can't be used of the unanswered requests: told at once, for one answer may be followed by the next."""

    unfit: tuple[RequestUnfit, ...]


@dataclass(frozen=True, slots=True)
class Woke:
    """Nothing new is known, but time has passed or requests have come in."""


Fact: TypeAlias = (
    StartRequested
    | Succeeded
    | Rejected
    | CameToNothing
    | Lost
    | Interrupted
    | Impossible
    | Probed
    | ConditionTold
    | ConditionFailed
    | MessagesBuilt
    | MessageFailed
    | RequestUnfit
    | RequestsUnfit
    | Woke
)
