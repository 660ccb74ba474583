"""What is wrong with a saga class or with one step of it, before anything is known about the whole.

Owns the messages: each names the place and the line to add or change. Must not compile anything. Called by `compile`,
in the order written, so that the first mistake on the page is the one reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, get_origin

from atone._core.plan import COMMAND, DEFAULT_TIMEOUT_SECONDS, Role
from atone._core.retry import Retry
from atone._define.message import is_topic
from atone._define.step import AnyStep, is_step
from atone.errors import DefinitionError

NAME_CHARACTERS_MAX = 100
STEPS_MAX = 100
INPUTS_MAX = 6
SECONDS_MAX = 1e300  # a whole number beyond it is no float any more
KEYWORDS = (
    "version",
    "name",
    "deadline",
    "rollback_deadline",
    "on_compensation_failure",
    "late_grace",
    "recoveries_max",
)


def keywords(saga: str, given: Mapping[str, Any]) -> None:
    """Judge the names of a saga's class keywords; Python's own words would speak of `__init_subclass__`."""
    unknown = [name for name in given if name not in KEYWORDS]
    if unknown:
        raise DefinitionError(f"{saga}: there is no class keyword {unknown[0]!r}. A saga takes: {', '.join(KEYWORDS)}.")


def header(cls: type, root: type, said: Mapping[str, Any]) -> None:
    """Judge a saga's bases and class keywords."""
    saga = cls.__name__
    for base in cls.__mro__[1:]:
        if base is not root and (issubclass(base, root) or any(map(is_step, vars(base).values()))):
            raise DefinitionError(
                f"{saga} would inherit the steps of {base.__name__}, and a saga is read in one place. "
                f"Write: class {saga}(Saga[...]) with steps of its own; share code through a participant or a function."
            )
    _name(f"{saga}", said["name"], f'class {saga}(Saga[...], name="{saga}")')
    if not _is_whole(said["version"], 1):
        raise DefinitionError(f"{saga}: version={said['version']!r} is not a whole number from 1. Write version=1.")
    if not _is_whole(said["recoveries_max"], 1):
        raise DefinitionError(
            f"{saga}: recoveries_max={said['recoveries_max']!r} is not a whole number from 1. Write recoveries_max=5."
        )
    for option in ("deadline", "rollback_deadline"):
        duration(saga, option, said[option])
    if said["late_grace"] not in (0, timedelta(0)) and duration(saga, "late_grace", said["late_grace"]) is None:
        raise DefinitionError(f"{saga}: late_grace=None says nothing. Write seconds, or leave it out.")
    _one_of(saga, "on_compensation_failure", said["on_compensation_failure"], ("continue", "halt"))


def names(cls: type, root: type, named: list[tuple[str, AnyStep]]) -> None:
    """Judge which steps a class has, and what they and their functions are called."""
    saga = cls.__name__
    if not named:
        raise DefinitionError(
            f'{saga} has no steps. Add: @step(no_compensation="why") above an `async def` or `def` method.'
        )
    if len(named) > STEPS_MAX:
        raise DefinitionError(
            f"{saga} has {len(named)} steps, and {STEPS_MAX} is the most. Split it into sagas that start each other."
        )
    taken: dict[int, str] = {}
    for name, step in named:
        _name(f"{saga}.{name}", name, "a shorter, plain name")
        if id(step) in taken:
            raise DefinitionError(f"{saga}.{name} is the step {taken[id(step)]} again. Remove one of the two names.")
        if step.declared.owner is not None:
            raise DefinitionError(
                f"{saga}.{name} belongs to {step.declared.owner}. Write a step of its own for {saga}."
            )
        taken[id(step)] = name
        for mine in (name, *(handler.name for handler in step.declared.handlers.values())):
            hidden = next((base for base in cls.__mro__[1:] if mine in vars(base)), None)
            if hidden is not None:
                raise DefinitionError(f"{saga}.{mine} would hide {hidden.__name__}.{mine}. Give it another name.")


def declaration(saga: str, step: AnyStep, above: tuple[AnyStep, ...]) -> None:
    """Judge one step by itself and by the steps written above it."""
    where = f"{saga}.{step.name}"
    _edges(where, step, above)
    _policies(where, step)
    _promises(where, step)


def duration(where: str, option: str, value: Any) -> float | None:
    """Return a time in seconds, or None where none is given."""
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= SECONDS_MAX:
        raise DefinitionError(f"{where}: {option}={value!r} is not a time. Write seconds above 0, or a timedelta.")
    return float(seconds)


def _edges(where: str, step: AnyStep, above: tuple[AnyStep, ...]) -> None:
    if len(step.declared.needs) > INPUTS_MAX:
        raise DefinitionError(
            f"{where}: it takes {len(step.declared.needs)} results, and {INPUTS_MAX} is the most. Return what belongs "
            f"together from one step, or read the rest with ctx.result_or_none(step)."
        )
    for need in step.declared.needs:
        _written_above(where, step, "input", need, above)
    for one in step.declared.options.get("after") or ():
        _written_above(where, step, "after", one, above)
    for need in step.declared.needs:
        if "when" in need.declared.handlers:
            raise DefinitionError(
                f"{where}: its input {need.name} may be skipped (@{need.name}.when), and then there is no result to "
                f"take. Read it with ctx.result_or_none({need.name}) and write after=({need.name},)."
            )


def _written_above(where: str, step: AnyStep, word: str, given: Any, above: tuple[AnyStep, ...]) -> None:
    if not is_step(given):
        line = "after=(a, b), or after=(a,) for one" if word == "after" else "an earlier step's name"
        raise DefinitionError(f"{where}: its {word} is {given!r}, which is not a step. Write {line}.")
    if any(given is earlier for earlier in above):
        return
    owner = given.declared.owner
    reason = f"belongs to {owner}" if owner else "is the step itself" if given is step else "is not written above it"
    raise DefinitionError(
        f"{where}: its {word} {given.name} {reason}. Take one of the steps above: "
        f"{', '.join(earlier.name for earlier in above) or 'there is none, so move it down'}."
    )


def _policies(where: str, step: AnyStep) -> None:
    said = step.declared.options
    for option in ("timeout", "deadline"):
        duration(where, option, said.get(option))
    if step.declared.role is None:
        if duration(where, "timeout" if "event" in said else "the duration", said["wait"]) is None:
            raise DefinitionError(f"{where}: it would wait for ever. Write timeout=3600, in seconds, or a timedelta.")
        _event(where, said)
    _retry(where, said.get("retry"))
    deadline, timeout = duration(where, "deadline", said.get("deadline")), said.get("timeout", DEFAULT_TIMEOUT_SECONDS)
    one_call = duration(where, "timeout", timeout) or DEFAULT_TIMEOUT_SECONDS
    if deadline is not None and deadline < one_call:
        raise DefinitionError(
            f"{where}: its deadline of {deadline:g} s is shorter than one call may take ({one_call:g} s). "
            f"Write timeout={deadline:g} or less, or deadline={one_call:g} or more."
        )
    for what, handler in step.declared.handlers.items():
        duration(f"{where}: @{step.name}.{what}", "timeout", handler.timeout)
        _retry(f"{where}: @{step.name}.{what}", handler.retry)


def _event(where: str, said: Mapping[str, Any]) -> None:
    if "event" not in said:
        return
    event = said["event"]
    if not isinstance(event, str) or not event.strip() or len(event) > NAME_CHARACTERS_MAX:
        raise DefinitionError(
            f'{where}: {event!r} is not an event\'s name. Write wait_for_event("payment.settled", ...), '
            f"at most {NAME_CHARACTERS_MAX} characters."
        )
    _one_of(where, "on_timeout", said["on_timeout"], ("backward", "attention"))


def _retry(where: str, value: Any) -> None:
    if value is not None and not isinstance(value, Retry):
        raise DefinitionError(f"{where}: retry={value!r} is not a policy. Write retry=Retry(attempts=5).")


def _promises(where: str, step: AnyStep) -> None:
    said, handlers = step.declared.options, step.declared.handlers
    is_command = step.declared.does is COMMAND
    if is_command:
        _command(where, step)
    else:
        _rejects(where, said.get("rejects", ()))
    _one_of(where, "on_unknown", said.get("on_unknown", "attention"), ("attention", "backward"))
    for option in ("at_most_once", "barrier"):
        _one_of(where, option, said.get(option, False), (False, True))
    if "on_unknown" in said and not said.get("at_most_once"):
        raise DefinitionError(
            f"{where}: on_unknown is for a step that is not repeated. Add at_most_once=True, or remove on_unknown."
        )
    if said.get("on_unknown") == "backward" and not said.get("barrier", is_command and "compensation" in handlers):
        raise DefinitionError(
            f'{where}: on_unknown="backward" would undo a call that may still arrive. Add barrier=True if the '
            f'participant refuses an action after its compensation, or write on_unknown="attention".'
        )
    if said.get("barrier") and "compensation" not in handlers:
        raise DefinitionError(
            f"{where}: barrier=True speaks of a compensation, and there is none. "
            f"Add @{step.name}.compensation above a method, or remove barrier."
        )
    if step.declared.role is Role.COMPENSATABLE:
        _way_back(where, step, said.get("no_compensation"))
    if step.declared.role is Role.PIVOT and "when" in handlers:
        raise DefinitionError(
            f"{where}: the pivot can't be skipped, or nobody would know on which side of it the saga is. "
            f"Remove @{step.name}.when, or put the choice into the action."
        )


def _command(where: str, step: AnyStep) -> None:
    said = step.declared.options
    if not _is_type(said.get("reply")):
        raise DefinitionError(
            f"{where}: reply={said.get('reply')!r} is not the type of a reply. Write "
            f"@{step.declared.word}(reply=Booked), or reply=type(None) if the participant only says that it is done."
        )
    if said.get("rejects") is not None and not _is_type(said["rejects"]):
        raise DefinitionError(
            f"{where}: rejects={said['rejects']!r} is not the type of a refusal. Write rejects=BookingRefused, "
            f"or leave it out: then a refusal says its reason in words."
        )
    undoing = step.declared.handlers.get("compensation")
    for to in (said.get("to"), None if undoing is None else undoing.to):
        if to is not None and not is_topic(to):
            raise DefinitionError(
                f'{where}: to={to!r} is no topic. Write to="inventory.reserve": lower-case words with dots.'
            )


def _is_type(value: Any) -> bool:
    return isinstance(value, type) or get_origin(value) is not None


def _way_back(where: str, step: AnyStep, reason: Any) -> None:
    has_compensation = "compensation" in step.declared.handlers
    if reason is not None and (not isinstance(reason, str) or not reason.strip()):
        raise DefinitionError(f'{where}: no_compensation={reason!r} gives no reason. Write no_compensation="why".')
    if reason is None and not has_compensation:
        raise DefinitionError(
            f"{where}: it has no compensation. Add @{step.name}.compensation above a method that undoes it, "
            f'or write @{step.declared.word}(no_compensation="why nothing has to be undone").'
        )
    if reason is not None and has_compensation:
        raise DefinitionError(
            f"{where}: it has a compensation and says that it needs none. Remove no_compensation={reason!r}, "
            f"or remove @{step.name}.compensation."
        )


def _rejects(where: str, value: Any) -> None:
    given: list[Any] = [*value] if isinstance(value, tuple | list | set) else [value]
    wrong: list[Any] = [one for one in given if not (isinstance(one, type) and issubclass(one, Exception))]
    if wrong or not isinstance(value, tuple):
        names = ", ".join(getattr(one, "__name__", "CardDeclined") for one in given)
        raise DefinitionError(f"{where}: rejects={value!r} is not a tuple of exceptions. Write rejects=({names},).")
    if Exception in given:
        raise DefinitionError(
            f"{where}: rejects=(Exception,) calls every failure surely without effect. "
            f"Name the exceptions that say so, for example rejects=(CardDeclined,)."
        )


def _name(where: str, name: Any, line: str) -> None:
    if not isinstance(name, str) or not name.isidentifier() or len(name) > NAME_CHARACTERS_MAX:
        raise DefinitionError(
            f"{where}: {name!r:.120} is not a name of letters, digits and underscores, "
            f"at most {NAME_CHARACTERS_MAX} of them. Write {line}."
        )


def _one_of(where: str, option: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not any(value is one or (isinstance(value, str) and value == one) for one in allowed):
        choices = " or ".join(f"{option}={one!r}" for one in allowed)
        raise DefinitionError(f"{where}: {option}={value!r} means nothing. Write {choices}.")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
