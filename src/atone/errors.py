"""Every exception that a user of Atone can see.

One root, few leaves; each has a stable `code` and a message that ends with the next move.
`Reject` and `RetryAfter` are the two that user code raises itself, inside a step.
Outcomes of a saga are values (`Completed`, `Compensated` ...), not exceptions.
"""

from __future__ import annotations


class AtoneError(Exception):
    """The root of everything Atone raises on purpose."""

    code = "atone"


class DefinitionError(AtoneError, TypeError):
    """A saga definition is wrong; raised when the class is made or the orchestrator is built.

    Of a choreography `findings` holds all that is wrong with it: code, place and message of each.
    """

    code = "definition"
    findings: tuple[tuple[str, str, str], ...] = ()


class DefinitionMismatch(AtoneError):
    """The code's plan differs from the plan that unfinished sagas of the same version were started with."""

    code = "definition_mismatch"


class PayloadError(AtoneError):
    """An input, result or event cannot be encoded or decoded as its declared type, or breaks a limit."""

    code = "payload"


class ConflictingStart(AtoneError):
    """A saga with this tenant, name and id exists, with another input. Nothing was written."""

    code = "conflicting_start"


class UnknownSaga(AtoneError):
    """No saga has this tenant, name and id, or no such definition is registered."""

    code = "unknown_saga"


class RequestRefused(AtoneError):
    """A cancel, event or operator command does not apply to the saga as it is now."""

    code = "request_refused"


class NoResult(AtoneError, KeyError):
    """A completed saga has no result of this step: it was skipped, or belongs to another saga."""

    code = "no_result"

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would put the sentence into quotes


class OutcomeTimeout(AtoneError, TimeoutError):
    """`outcome(timeout=)` ran out. The saga goes on; ask again."""

    code = "outcome_timeout"


class StoreError(AtoneError):
    """The root of what a store raises."""

    code = "store"


class StoreClosed(StoreError):
    """The store object is not open: not entered yet, or closed by whoever holds it. Trying again changes nothing."""

    code = "store_closed"


class StoreUnavailable(StoreError):
    """The store can't be reached or can't write now (locked, full, read-only, down). Try again.

    A commit that raised this has an unknown outcome: send the same commit again.
    """

    code = "store_unavailable"


class StoreSchemaError(StoreError):
    """The store's schema is newer than this code, or is not Atone's."""

    code = "store_schema"


class CorruptJournal(StoreError):
    """A journal row can't be read or folded. The saga is parked; no other saga is touched."""

    code = "corrupt_journal"


class WorkerDead(StoreError):
    """This worker's lease is over or it was declared dead. Nothing was written."""

    code = "worker_dead"


class VolatileStore(StoreError):
    """The memory store forgets everything when the process ends, and was not asked for by name."""

    code = "volatile_store"


class BrokerError(AtoneError):
    """The root of what a broker raises."""

    code = "broker"


class BrokerClosed(BrokerError):
    """The broker object is not open: not entered yet, or closed by whoever holds it. Trying again changes nothing."""

    code = "broker_closed"


class BrokerUnavailable(BrokerError):
    """The broker can't be reached or can't take anything now. What was being published may be there: publish again."""

    code = "broker_unavailable"


class MessageError(AtoneError):
    """A message can't be read: undecodable, of an unknown name or schema version, or without what it must carry."""

    code = "message"


class Shutdown(AtoneError):
    """The orchestrator is closed or closing; nothing new is taken."""

    code = "shutdown"


class CalledInLoop(AtoneError, RuntimeError):
    """A blocking call was made where an event loop runs, which it would stop."""

    code = "called_in_loop"


class Overloaded(AtoneError):
    """A bound is reached (sagas in flight, queue length). Nothing was written; try again later."""

    code = "overloaded"


class BarrierMisplaced(AtoneError):
    """The barrier and the business rows are not in one transaction, so it would guard nothing. Nothing was written."""

    code = "barrier_misplaced"


class AlreadyCompensated(AtoneError):
    """An action came after its compensation; it was refused, and surely has no effect."""

    code = "already_compensated"


class ArgumentsDiffer(AtoneError):
    """A key was used before, with other arguments. Nothing was done."""

    code = "arguments_differ"


class OutcomeUnknown(AtoneError):
    """An action that may be called at most once was begun, and nobody knows what came of it."""

    code = "outcome_unknown"


class Reject(Exception):
    """Raise in a step: refused for good, surely without effect; what was done before is undone.

    In a compensation it means: can't be compensated, don't try again.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RetryAfter(Exception):
    """Raise in a step: the outcome is unknown, try again after `seconds` instead of the retry policy's delay."""

    def __init__(self, seconds: float, reason: str = "asked to retry later") -> None:
        super().__init__(seconds, reason)
        self.seconds = seconds
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class InProgress(AtoneError, RetryAfter):
    """Somebody else works under this key at the moment. Nothing was done; ask again after `seconds`."""

    code = "in_progress"


class Locked(AtoneError, RetryAfter):
    """Another saga holds the resource. Nothing was written; ask again after `seconds`."""

    code = "locked"

    def __init__(self, saga: str, resource: str, holder: str, seconds: float) -> None:
        super().__init__(seconds, f"{resource!r} is held by saga {holder!r} until it ends; ask again later")
        self.saga, self.resource, self.holder = saga, resource, holder


class DeadlockFound(AtoneError, Reject):
    """Several sagas wait for each other's locks, and this one is to turn back. Nothing was written."""

    code = "deadlock_found"

    def __init__(self, sagas: tuple[str, ...]) -> None:
        waits = " waits for ".join(repr(saga) for saga in (*sagas, sagas[0]))
        super().__init__(f"deadlock: saga {waits}; the first one gives way")
        self.sagas = sagas


class Changed(AtoneError, Reject):
    """What the saga had read is not as it was. Nothing was written; the saga turns back."""

    code = "changed"
