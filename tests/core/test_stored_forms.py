"""What other releases and processes rely on to the letter: keys that participants remember, defaults of plans.

Each was changed by a mutant that no other test noticed.
"""

from __future__ import annotations

from atone._core.event_map import EventMap, Handler
from atone._core.keys import idempotency_key, part_of_saga, part_of_step
from atone._core.plan import Plan, StepPlan
from atone._core.retry import Retry


def test_a_key_is_the_same_text_in_every_release() -> None:
    """A participant remembers it for as long as it likes; another text would be another call, done a second time."""
    key = idempotency_key("default", "PlaceOrder", "order-1", "charge", "action")
    assert key == "7-default.10-PlaceOrder.7-order-1.6-charge.6-action"
    assert part_of_saga("a", "", "é.1") == "1-a.0-.3-é.1"
    assert part_of_step("a-b", "compensation") == "3-a-b.12-compensation"


def test_the_defaults_of_a_policy_are_those_that_are_documented() -> None:
    """A plan that leaves one out gets these, also when it is read by a later release."""
    assert Retry() == Retry(attempts=3, initial=0.5, factor=2.0, maximum=60.0, jitter=0.5, alert_after=10)
    step = StepPlan("a")
    assert step.retry == Retry()
    assert step.compensation_retry == Retry(attempts=20, initial=0.5, factor=2.0, maximum=300.0)
    assert step.probe_retry == Retry(attempts=3, initial=0.5)
    assert (step.timeout_seconds, step.compensation_timeout_seconds, step.probe_timeout_seconds) == (30.0, 30.0, 30.0)
    assert (step.on_unknown, step.on_timeout, step.result_type) == ("attention", "backward", "None")
    plan = Plan("P", 1, (step,))
    assert (plan.on_compensation_failure, plan.late_grace_seconds, plan.recoveries_max) == ("continue", 5.0, 5)


def test_the_defaults_of_an_event_map_are_those_that_are_documented() -> None:
    """The same for choreographies."""
    one = Handler("stock", "reserve", ("a",))
    assert (one.out_of_order, one.outcomes, one.timeout_seconds) == ("defer", ((),), 30.0)
    assert one.retry == StepPlan("a").compensation_retry
    assert EventMap("m").deadline_seconds == 86_400.0
    assert EventMap("m").version == 1
