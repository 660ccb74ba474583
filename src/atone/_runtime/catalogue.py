"""The definitions that an orchestrator was given, bound and found again.

Owns the look-up by class and by stored identity, and the refusal to run beside unfinished sagas of a changed plan. Must
not run anything. Used by `Orchestrator`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from atone._core.state import SagaStatus
from atone._runtime.bound import BoundSaga
from atone.codec import Codec
from atone.definition import Saga
from atone.errors import DefinitionError, DefinitionMismatch, UnknownSaga
from atone.store import FINAL_STATUSES, Query, Store, Summary

_UNFINISHED = frozenset(status.value for status in SagaStatus) - FINAL_STATUSES


class Catalogue:
    """Bound definitions by class.

    Raises:
        DefinitionError: Something else than Saga objects was given, or a name and version twice.
    """

    def __init__(self, sagas: Sequence[Saga[Any]], codec: Codec) -> None:
        self._bound: dict[type[Saga[Any]], BoundSaga] = {}
        names: set[tuple[str, int]] = set()
        for saga in _checked(sagas):
            made = BoundSaga(saga, codec)
            if (made.plan.name, made.plan.version) in names:
                twice = f"{made.plan.name} version {made.plan.version}"
                raise DefinitionError(f"{twice} is given twice; change name= or version=.")
            names.add((made.plan.name, made.plan.version))
            self._bound[type(saga)] = made

    @property
    def all(self) -> list[BoundSaga]:
        """Every definition."""
        return list(self._bound.values())

    @property
    def commanding(self) -> str | None:
        """The name of a definition that sends commands, if there is one."""
        return next((bound.plan.name for bound in self._bound.values() if bound.plan.has_commands), None)

    def of_class(self, saga: type[Saga[Any]]) -> BoundSaga:
        """Return the definition of a class.

        Raises:
            UnknownSaga: No object of it was given.
        """
        try:
            return self._bound[saga]
        except KeyError:
            name = getattr(saga, "__name__", saga)
            raise UnknownSaga(f"{name!s} is not registered here; pass an object of it in `sagas=[...]`.") from None

    def of_stored(self, found: Summary) -> BoundSaga | None:
        """Return the definition that a stored saga follows, if it was given."""
        identity = (found.name, found.definition_version, found.plan_hash)
        return next((bound for bound in self._bound.values() if bound.identity == identity), None)

    def refuse_unknown(self, names: Iterable[str]) -> None:
        """Look for names of which no definition was given.

        Raises:
            DefinitionError: There is at least one.
        """
        known = {bound.plan.name for bound in self._bound.values()}
        for name in names:
            if name not in known:
                raise DefinitionError(
                    f"A limit is for {name!r}, which is not registered here; the names are {', '.join(sorted(known))}."
                )

    async def refuse_mismatch(self, store: Store) -> None:
        """Look for unfinished sagas that follow another plan of a name and version given here.

        Raises:
            DefinitionMismatch: There is at least one.
        """
        for bound in self._bound.values():
            plan = bound.plan
            strangers = await store.find(
                Query(
                    name=plan.name,
                    definition_version=plan.version,
                    other_hash_than=plan.plan_hash,
                    statuses=_UNFINISHED,
                    limit=1,
                )
            )
            if strangers:
                raise DefinitionMismatch(
                    f"{plan.name} version {plan.version} differs from the plan that unfinished sagas follow "
                    f"(for one: {strangers[0].saga_id!r}). "
                    f"Give the changed definition a new version= and register both."
                )


def _checked(sagas: object) -> Sequence[Saga[Any]]:
    """Return what was given if it is a list of Saga objects; a type checker was not necessarily asked."""
    if isinstance(sagas, str) or not isinstance(sagas, Sequence):
        raise DefinitionError(
            f"`sagas` takes a list of Saga objects, not a {type(sagas).__name__}; give [MySaga(...)]."
        )
    listed = cast("Sequence[object]", sagas)
    for saga in listed:
        if isinstance(saga, type):
            raise DefinitionError(f"`sagas` takes objects, not classes; write {saga.__name__}(...).")
        if not isinstance(saga, Saga):
            raise DefinitionError(f"`sagas` takes Saga objects, not a {type(saga).__name__}; give [MySaga(...)].")
    return cast("Sequence[Saga[Any]]", listed)
