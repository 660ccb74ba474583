"""What is verified, as its user has said it: how the saga and its participants are made, the input, the ledger.

Owns the questions that can be asked before anything runs. Made by `verifying`, read by `run`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, cast

from atone._core.plan import Plan
from atone.broker import Broker
from atone.definition import Saga
from atone.testing.simulate import Simulation

_PLAIN = "Return plain values: numbers, text, and lists, tuples, dicts of them."


@dataclass(frozen=True)
class Case:
    """`participants` makes them anew for each run, `saga` a definition's object on them for each life of the worker."""

    saga: Callable[[Any], Saga[Any]]
    given: Any
    participants: Callable[[], Any]
    ledger: Callable[[Any], Any]
    plan: Plan
    events: Mapping[str, Any] = field(default_factory=dict[str, Any])
    serving: Callable[[Any, Broker], AbstractAsyncContextManager[Any]] | None = None

    @classmethod
    def of(
        cls,
        saga: Callable[[Any], Saga[Any]],
        given: Any,
        participants: Callable[[], Any],
        ledger: Callable[[Any], Any],
        events: Mapping[str, Any],
        serving: Callable[[Any, Broker], AbstractAsyncContextManager[Any]] | None,
    ) -> Case:
        """Return the case; the participants are made once to see of which class the saga is.

        Raises:
            ValueError: An event is none that the saga waits for, or nobody is there to answer its commands.
            TypeError: Something is not of the kind that is asked for.
        """
        _check_callables(saga, participants, ledger)

        async def look() -> type[Saga[Any]]:
            async with AsyncExitStack() as stack:
                return type(definition_on(saga, await entered(participants(), stack)))

        found = Simulation(None).run(look)
        plan = found.plan()
        unknown = sorted(events.keys() - {step.event_name for step in plan.steps})
        if unknown:
            raise ValueError(f"{plan.name} waits for no event {unknown[0]!r}. Take it out of events=.")
        if plan.has_commands and serving is None:
            raise ValueError(
                f"{plan.name} sends commands, and nobody answers. Give serving=lambda participants, broker: serve(...)."
            )
        return cls(saga, given, participants, ledger, plan, events, serving)

    def balance(self, participants: Any) -> Any:
        """Return what the ledger says now; what the participants do later does not change it."""
        told = self.ledger(participants)
        if inspect.isawaitable(told):
            if inspect.iscoroutine(told):
                told.close()
            raise TypeError("ledger= is asynchronous. Give a plain function that reads the participants.")
        try:
            kept = deepcopy(told)
        except TypeError as error:
            raise TypeError(f"What ledger= returns can't be kept ({error}). {_PLAIN}") from error
        if kept != told:
            raise TypeError(f"What ledger= returns, {told!r}, is not equal to its own copy. {_PLAIN}")
        return kept


def definition_on(saga: Callable[[Any], Saga[Any]], participants: Any) -> Saga[Any]:
    """Return the definition's object on these participants.

    Raises:
        TypeError: It is none.
    """
    found = saga(participants)
    if not isinstance(cast("object", found), Saga):
        raise TypeError(
            f"The saga has to be a Saga class, or a function that returns an object of one, and it gave a "
            f"{type(found).__name__}. Write verify(lambda participants: PlaceOrder(participants), ...)."
        )
    return found


def _check_callables(saga: object, participants: object, ledger: object) -> None:
    if isinstance(saga, Saga):
        name = type(cast("object", saga)).__name__
        raise TypeError(
            f"{name} is given as an object, and each life of the worker needs another one. Give the class, or "
            f"lambda participants: {name}(participants)."
        )
    if not callable(participants):
        raise TypeError(
            f"participants= is a {type(participants).__name__}, and each run needs others. Give a class or a "
            "function that makes them."
        )
    if not callable(ledger):
        raise TypeError(
            f"ledger= is a {type(ledger).__name__}. Give a function that reads the participants and returns what "
            "counts."
        )


async def entered(made: Any, stack: AsyncExitStack) -> Any:
    """Return the participants; what is a context manager is left when the run is over."""
    if isinstance(made, AbstractAsyncContextManager):
        return await stack.enter_async_context(cast("AbstractAsyncContextManager[Any]", made))
    if isinstance(made, AbstractContextManager):
        return stack.enter_context(cast("AbstractContextManager[Any]", made))
    if inspect.isgenerator(made) or inspect.isasyncgen(made) or inspect.isawaitable(made):
        if inspect.iscoroutine(made):
            made.close()
        raise TypeError(
            f"participants= returned a {type(made).__name__}. Give a plain function, or one that is decorated with "
            "@contextmanager or @asynccontextmanager."
        )
    return made
