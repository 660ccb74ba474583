"""The base class of participants, and the class body that watches for names given twice.

Owns when a participant is judged: when its class is made, so that errors name it. Must not look at other participants;
a choreography does. Subclassed by users; read by `whole` through `reactions_of`.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from atone._choreography import check
from atone._choreography.declare import AnyReacting, is_reacting
from atone._define.scope import names_around
from atone.errors import DefinitionError


class _Body(dict[str, Any]):
    """A class body's names: one that belongs to a reaction is given once."""

    def __init__(self, participant: str) -> None:
        super().__init__()
        self._participant = participant

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self and (is_reacting(self[name]) or is_reacting(value) or name in self._undos()):
            raise DefinitionError(
                f"{self._participant}.{name} is given twice, and the second would hide the first. Rename one of them."
            )
        super().__setitem__(name, value)

    def _undos(self) -> set[str]:
        made = [value for value in self.values() if is_reacting(value)]
        functions = [one.undone_by.function for one in made if one.undone_by is not None]
        functions += [one.declared.overdue for one in made if one.declared.overdue is not None]
        return {function.__name__ for function in functions}


class _ParticipantType(ABCMeta):
    """Gives a participant its watched body; an ABCMeta, so that it may share abstract mixins."""

    @classmethod
    def __prepare__(
        metacls,  # noqa: N804 - the class made here is none of its instances
        name: str,
        bases: tuple[type, ...],
        /,
        **_: Any,
    ) -> dict[str, Any]:
        return _Body(name)

    def __new__(
        metacls, name: str, bases: tuple[type, ...], body: dict[str, Any], /, **keywords: Any
    ) -> _ParticipantType:
        if bases:
            check.keywords(name, keywords)
        return super().__new__(metacls, name, bases, dict(body), **keywords)


if TYPE_CHECKING:
    # mypy looks at class keywords only where it knows the metaclass.
    _MadeBy = ABCMeta
else:
    _MadeBy = _ParticipantType


class Participant(metaclass=_MadeBy):
    """Define a service that takes part in choreographies: subclass, and write its reactions.

    `name` is what others know it by, and the group in which its processes share events; never change it while sagas
    are under way. Its objects hold what the reactions need (clients, settings), and no state of a saga.

    Raises:
        DefinitionError: Something is missing or contradicts itself; the message says which line to add.
    """

    __participant__: ClassVar[str] = ""
    __reactions__: ClassVar[Mapping[str, AnyReacting]] = {}
    __names_around__: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, *, name: str) -> None:
        super().__init_subclass__()
        cls.__participant__ = name
        cls.__reactions__ = check.participant(cls, Participant, name)
        cls.__names_around__ = names_around(cls)


def name_of(participant: type[Participant]) -> str:
    """Return what others know a participant by."""
    return participant.__participant__
