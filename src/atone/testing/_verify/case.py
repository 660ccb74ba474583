"""What is verified, as its user has said it: how the saga and its participants are made, the input, the ledger.

Owns the questions that can be asked before anything runs. Made by `verifying`, read by `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, cast

from atone._core.plan import Plan
from atone.broker import Broker
from atone.definition import Saga
from atone.testing.simulate import Simulation


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
        """

        async def look() -> type[Saga[Any]]:
            async with AsyncExitStack() as stack:
                return type(saga(await entered(participants(), stack)))

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
        return deepcopy(self.ledger(participants))


async def entered(made: Any, stack: AsyncExitStack) -> Any:
    """Return the participants; what is a context manager is left when the run is over."""
    if isinstance(made, AbstractAsyncContextManager):
        return await stack.enter_async_context(cast("AbstractAsyncContextManager[Any]", made))
    if isinstance(made, AbstractContextManager):
        return stack.enter_context(cast("AbstractContextManager[Any]", made))
    return made
