"""The plans that the search walks through: each shape of the law once, as small as it can be.

Owns nothing but these. Back-off is short and whole, so that worlds meet again and an exhaustive search stays small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from atone._core.plan import Plan, Role, StepPlan
from atone._core.retry import Retry
from tests.core.driver import command, delay, event, fan, pivot, retriable, saga_of, step

TWICE = Retry(attempts=2, initial=1.0, factor=1.0, maximum=1.0, jitter=0.0)
POLICIES: dict[str, Any] = {"retry": TWICE, "compensation_retry": TWICE, "probe_retry": TWICE}


def _quick(plan: Plan, **options: Any) -> Plan:
    return replace(plan, steps=tuple(_short(one) for one in plan.steps), recoveries_max=1, **options)


def _short(one: StepPlan) -> StepPlan:
    return replace(one, **POLICIES, timeout_seconds=4.0, compensation_timeout_seconds=4.0, probe_timeout_seconds=4.0)


def _forward(made: Callable[..., StepPlan], name: str, role: Role) -> StepPlan:
    return made(name, role=role, has_compensation=False)


PLANS: dict[str, Plan] = {
    "linear": _quick(saga_of(step("a"), step("b"), step("c"))),
    "barrier": _quick(saga_of(step("a", barrier=True), step("b", barrier=True))),
    "pivot": _quick(saga_of(step("a"), pivot("p"), retriable("r"))),
    "probed_pivot": _quick(saga_of(step("a"), pivot("p", has_probe=True), retriable("r", has_probe=True))),
    "probe": _quick(saga_of(step("a", has_probe=True), step("b", has_probe=True))),
    "once": _quick(saga_of(step("a", at_most_once=True), step("b"))),
    "once_second": _quick(saga_of(step("a"), step("b", at_most_once=True), step("c"))),
    "once_pivot": _quick(saga_of(step("a"), step("b"), pivot("p", at_most_once=True))),
    "once_probed": _quick(
        saga_of(step("a", at_most_once=True, has_probe=True), pivot("p", at_most_once=True, has_probe=True))
    ),
    "once_back": _quick(saga_of(step("a"), step("b", at_most_once=True, barrier=True, on_unknown="backward"))),
    "irreversible": _quick(saga_of(step("a", no_compensation="a mail"), step("b"))),
    "fan": _quick(fan(step("a"), step("b"), join=step("j"))),
    "fan_probe": _quick(fan(step("a", has_probe=True), step("b"), first=step("f"))),
    "fan_halt": _quick(fan(step("a"), step("b"), join=step("j")), on_compensation_failure="halt"),
    "fan_pivot": _quick(fan(step("a"), step("b", at_most_once=True), join=pivot("p"))),
    "fan_after": _quick(
        Plan("Test", 1, (pivot("p"), retriable("r", after=("p",)), retriable("s", after=("p",), at_most_once=True)))
    ),
    "when": _quick(saga_of(step("a", has_when=True), step("b"), pivot("p"))),
    "fan_when": _quick(fan(step("a", has_when=True), step("b"), join=step("j", has_when=True))),
    "delay": _quick(saga_of(step("a"), delay("d", 6.0), step("b"))),
    "event": _quick(saga_of(step("a"), event("paid", 6.0), step("b"))),
    "event_attention": _quick(saga_of(step("a"), event("paid", 6.0, on_timeout="attention"), pivot("p"))),
    "fan_event": _quick(fan(event("paid", 6.0), step("b"), join=step("j"))),
    "deadline": _quick(saga_of(step("a"), step("b"), pivot("p")), deadline_seconds=7.0),
    "step_deadline": _quick(saga_of(step("a", deadline_seconds=6.0), pivot("p", deadline_seconds=6.0))),
    "rollback_deadline": _quick(saga_of(step("a"), step("b")), rollback_deadline_seconds=6.0),
    "command": _quick(saga_of(command("a"), command("b"))),
    "command_pivot": _quick(
        saga_of(command("a"), _forward(command, "p", Role.PIVOT), _forward(command, "r", Role.RETRIABLE))
    ),
    "command_bare": _quick(saga_of(command("a", barrier=False), step("b"))),
    "command_once": _quick(saga_of(step("a"), command("b", at_most_once=True, has_probe=True), step("c"))),
    "command_once_bare": _quick(saga_of(command("a", at_most_once=True, barrier=False), pivot("p"))),
    "command_probe": _quick(saga_of(command("a", has_probe=True), pivot("p"))),
    "command_deadline": _quick(saga_of(command("a"), step("b"), pivot("p")), deadline_seconds=7.0),
    "fan_command": _quick(fan(command("a"), command("b"), join=step("j"))),
    "fan_command_mixed": _quick(
        fan(command("a"), step("b", has_when=True), join=pivot("p")), on_compensation_failure="halt"
    ),
    "fan_deadline": _quick(fan(step("a"), delay("d", 9.0), join=step("j")), deadline_seconds=7.0),
}
