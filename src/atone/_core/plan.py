"""A saga definition compiled to data: what `decide` knows of a saga, without any callable.

A plan is frozen, hashable, drawable and stored in the database as JSON. `plan_hash` covers names, kinds, edges,
order and types; retries, time-outs and limits may change under sagas in flight. Made by `atone.definition`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from typing import Any

from atone._core.retry import Retry
from atone._core.stored import known_fields


class Role(StrEnum):
    """Where a step stands towards the point of no return."""

    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


# A member is looked up by the enum's own code at every use, so what many turns pass uses these.
COMPENSATABLE = Role.COMPENSATABLE
PIVOT = Role.PIVOT
RETRIABLE = Role.RETRIABLE


class Does(StrEnum):
    """What a step does when its turn comes."""

    ACTION = "action"
    DELAY = "delay"
    EVENT = "event"
    COMMAND = "command"


COMMAND = Does.COMMAND

DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_COMPENSATION_RETRY = Retry(attempts=20, initial=0.5, factor=2.0, maximum=300.0)
DEFAULT_PROBE_RETRY = Retry(attempts=3, initial=0.5)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step as data. Times are seconds; `inputs` and `after` name earlier steps.

    `after` holds every direct predecessor, the inputs included.
    `barrier`: the participant itself refuses an action that arrives after its compensation, so none is awaited.
    `on_unknown` applies to an `at_most_once` step whose outcome stays unknown.
    `deadline_seconds` bounds all attempts of the action together, from the first one's start.
    `topic` is where a command step's message goes, `compensation_topic` where the one goes that undoes it.
    """

    name: str
    role: Role = Role.COMPENSATABLE
    does: Does = Does.ACTION
    inputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    has_when: bool = False
    has_probe: bool = False
    has_compensation: bool = False
    no_compensation: str | None = None
    at_most_once: bool = False
    barrier: bool = False
    on_unknown: str = "attention"
    retry: Retry = field(default_factory=Retry)
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    deadline_seconds: float | None = None
    compensation_retry: Retry = DEFAULT_COMPENSATION_RETRY
    compensation_timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    probe_retry: Retry = DEFAULT_PROBE_RETRY
    probe_timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    result_type: str = "None"
    event_name: str | None = None
    wait_seconds: float | None = None
    on_timeout: str = "backward"
    topic: str | None = None
    compensation_topic: str | None = None
    message_type: str | None = None
    rejects_type: str | None = None

    @property
    def acts(self) -> bool:
        """Whether it has an effect at a participant: by a call, or by a command."""
        return self.does is Does.ACTION or self.does is Does.COMMAND


# What a change of does not strand a saga in flight, so it stays out of the hash.
_TUNABLE = frozenset(
    {
        "retry",
        "timeout_seconds",
        "deadline_seconds",
        "compensation_retry",
        "compensation_timeout_seconds",
        "probe_retry",
        "probe_timeout_seconds",
        "wait_seconds",
        "no_compensation",
        "topic",
        "compensation_topic",
    }
)
# Fields that came later: where they say nothing they are left out, so that plans made before keep their hash and text.
_LATER = frozenset({"topic", "compensation_topic", "message_type", "rejects_type"})


@dataclass(frozen=True)
class Plan:
    """A saga definition as data: what `decide` follows.

    `on_compensation_failure` is "continue" or "halt". `deadline_seconds` counts from the start,
    `rollback_deadline_seconds` from the turn backward. `late_grace_seconds` is how long after its attempt's hard
    deadline a call may still land.
    """

    name: str
    version: int
    steps: tuple[StepPlan, ...]
    input_type: str = "None"
    on_compensation_failure: str = "continue"
    deadline_seconds: float | None = None
    rollback_deadline_seconds: float | None = None
    late_grace_seconds: float = 5.0
    recoveries_max: int = 5

    @cached_property
    def index(self) -> dict[str, int]:
        """Where each step stands in `steps`, by name."""
        return {step.name: at for at, step in enumerate(self.steps)}

    @cached_property
    def predecessors(self) -> tuple[tuple[int, ...], ...]:
        """For each step the positions of the steps that must be over before it begins."""
        return tuple(tuple(sorted(self.index[name] for name in step.after)) for step in self.steps)

    @cached_property
    def is_row(self) -> bool:
        """Whether each step comes after the one before it, so that never more than one is under way."""
        return all(at == 0 or at - 1 in before for at, before in enumerate(self.predecessors))

    @cached_property
    def is_plain(self) -> bool:
        """Whether it is a row of actions that begin without a condition and without a deadline over their attempts."""
        return self.is_row and all(
            one.does is Does.ACTION and not one.has_when and one.deadline_seconds is None for one in self.steps
        )

    @cached_property
    def has_commands(self) -> bool:
        """Whether a step of it is a command, so that replies are awaited."""
        return any(step.does is Does.COMMAND for step in self.steps)

    @cached_property
    def descendants(self) -> tuple[frozenset[int], ...]:
        """For each step the positions of all steps that come after it along the edges."""
        below: list[set[int]] = [set() for _ in self.steps]
        for at in reversed(range(len(self.steps))):
            for before in self.predecessors[at]:
                below[before] |= below[at] | {at}
        return tuple(frozenset(found) for found in below)

    @cached_property
    def pivot(self) -> int | None:
        """Where the point of no return stands, if the saga has one."""
        return next((at for at, step in enumerate(self.steps) if step.role is Role.PIVOT), None)

    @cached_property
    def plan_hash(self) -> str:
        """A digest of names, kinds, edges, order and types; the same on every machine."""
        stable = {
            "name": self.name,
            "version": self.version,
            "input_type": self.input_type,
            "steps": [{k: v for k, v in _plain(step).items() if k not in _TUNABLE} for step in self.steps],
        }
        return sha256(json.dumps(stable, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]

    def __hash__(self) -> int:
        """Hash by what identifies a plan; the generated one would walk every step on each look-up."""
        return hash((self.name, self.version, self.plan_hash))

    def to_json(self) -> str:
        """Return the whole plan as JSON text, tunable parts included."""
        return self._json

    @cached_property
    def _json(self) -> str:
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(plain | {"steps": [_plain(step) for step in self.steps]}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Plan:
        """Rebuild a plan from `to_json`; unknown keys of a newer release are ignored.

        Raises:
            ValueError: The text is not a plan.
        """
        try:
            known = known_fields(Plan, json.loads(text))
            known["steps"] = tuple(_step_from(step) for step in known["steps"])
            return Plan(**known)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as wrong:
            raise ValueError(f"The stored plan can't be read ({wrong}); it was not written by Atone.") from wrong


def _plain(step: StepPlan) -> dict[str, Any]:
    return {key: value for key, value in asdict(step).items() if value is not None or key not in _LATER}


def _step_from(found: object) -> StepPlan:
    known = known_fields(StepPlan, found)
    for key in ("retry", "compensation_retry", "probe_retry"):
        if key in known:
            known[key] = Retry(**known_fields(Retry, known[key]))
    known["role"], known["does"] = Role(known["role"]), Does(known["does"])
    known["inputs"], known["after"] = tuple(known["inputs"]), tuple(known["after"])
    return StepPlan(**known)
