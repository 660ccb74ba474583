"""The base class of saga definitions, and the class body that watches for names given twice.

Owns when a definition is judged: `__init_subclass__`, so that errors name the class and are raised as they are.
Must not judge it itself: `compile` and `check` do. Subclassed by users; read by `definition_of`.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from atone._core.plan import Plan
from atone._define import check
from atone._define.compile import Outline, outline_of
from atone._define.draw import draw
from atone._define.scope import names_around
from atone._define.step import is_step
from atone._define.values import Seconds
from atone.errors import DefinitionError

I = TypeVar("I")  # noqa: E741 - the saga's input, named as in `Saga[I]`


class _Body(dict[str, Any]):
    """A class body's names: one that belongs to a step is given once."""

    def __init__(self, saga: str) -> None:
        super().__init__()
        self._saga = saga

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self and (is_step(self[name]) or is_step(value) or name in self._handlers()):
            raise DefinitionError(
                f"{self._saga}.{name} is given twice, and the second would hide the first. Rename one of them."
            )
        super().__setitem__(name, value)

    def _handlers(self) -> set[str]:
        steps = (value for value in self.values() if is_step(value))
        return {handler.name for step in steps for handler in step.declared.handlers.values()}


class _SagaType(ABCMeta):
    """Gives a saga class its watched body; an ABCMeta, so that a saga may share abstract mixins."""

    @classmethod
    def __prepare__(
        metacls,  # noqa: N804 - the class made here is none of its instances
        name: str,
        bases: tuple[type, ...],
        /,
        **_: Any,
    ) -> dict[str, Any]:
        return _Body(name)

    def __new__(metacls, name: str, bases: tuple[type, ...], body: dict[str, Any], /, **keywords: Any) -> _SagaType:
        check.keywords(name, keywords)
        return super().__new__(metacls, name, bases, dict(body), **keywords)


if TYPE_CHECKING:
    # mypy looks at class keywords only where it knows the metaclass; `version="1"` is to be flagged.
    _MadeBy = ABCMeta
else:
    _MadeBy = _SagaType


class Saga(Generic[I], metaclass=_MadeBy):
    """Define a saga: subclass with the input's type, and write its steps in the order they run.

    The class is judged when it is made; what it says about types when the orchestrator is built. `name` is the class's
    own unless given; sagas under way belong to a name and a version. `deadline` counts from the start and turns the
    saga backward while it can, `rollback_deadline` from that turn. `late_grace` is how long after its hard deadline a
    call may still land. Times are seconds or timedeltas.

    A deadline has to fit one attempt of each action and every wait on the longest path up to and including the pivot
    (to the end, if there is none); a rollback deadline one attempt of each compensation on the longest path back.

    Raises:
        DefinitionError: Something is missing or contradicts itself; the message says which line to add.
    """

    __outline__: ClassVar[Outline | None] = None

    def __init_subclass__(
        cls,
        *,
        version: int = 1,
        name: str | None = None,
        deadline: Seconds | None = None,
        rollback_deadline: Seconds | None = None,
        on_compensation_failure: Literal["continue", "halt"] = "continue",
        late_grace: Seconds = 5.0,
        recoveries_max: int = 5,
    ) -> None:
        super().__init_subclass__()
        said: Mapping[str, Any] = {
            "version": version,
            "name": cls.__name__ if name is None else name,
            "deadline": deadline,
            "rollback_deadline": rollback_deadline,
            "on_compensation_failure": on_compensation_failure,
            "late_grace": late_grace,
            "recoveries_max": recoveries_max,
        }
        cls.__outline__ = outline_of(cls, Saga, said, names_around(cls))

    @classmethod
    def plan(cls) -> Plan:
        """Return the definition as data: hashable, and JSON with `to_json()`.

        Raises:
            DefinitionError: An annotation can't be resolved or contradicts another.
        """
        return outlined(cls).definition.plan

    @classmethod
    def mermaid(cls) -> str:
        """Return the definition as a Mermaid flowchart: the way forward, and the compensations as a dashed way back."""
        outline = outlined(cls)
        # Where a command's message goes may depend on its type; everything else is known without looking at types.
        plan = outline.definition.plan if outline.shape.has_commands else outline.shape
        return draw(plan, outline.compensations)


def outlined(saga: type[Saga[Any]]) -> Outline:
    """Return what was compiled when the class was made."""
    if saga.__outline__ is None:
        raise DefinitionError(
            f"{saga.__name__} has no steps of its own. Subclass it: class PlaceOrder(Saga[Order]): ..."
        )
    return saga.__outline__
