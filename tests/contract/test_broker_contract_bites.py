"""The broker contract can fail: each of its checks turns down a broker that has the rule of it taken out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from atone.brokers import _embedded_sqlite, memory
from atone.brokers.memory import MemoryBroker, Server
from atone.testing.broker_contract import BROKER_CHECKS, BrokerCheck, BrokerSubject, ContractBroken
from tests.contract.broken_brokers import BROKEN
from tests.contract.test_brokers import memory_subject, sqlite_subject

CHECKS = {check.name: check for check in BROKER_CHECKS}
# What the memory broker has not, and so can't have broken.
BROKEN_OTHERWISE = {"what_a_dead_process_held_comes_to_another", "who_can_not_be_reached_is_said_without_the_password"}


def broken_subject(kind: type[MemoryBroker | Server]) -> BrokerSubject:
    if issubclass(kind, Server):
        name = uuid4().hex
        memory.SERVERS[name] = kind()
        subject = memory_subject(name=name)
    else:
        subject = memory_subject(kind)
    return replace(subject, deadline_seconds=0.7)


def is_turned_down(check: BrokerCheck, subject: BrokerSubject) -> bool:
    try:
        asyncio.run(check(lambda: subject))
    except Exception:
        return True
    return False


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in BROKEN_OTHERWISE])
def test_this_check_turns_a_broken_broker_down(name: str) -> None:
    """The broker breaks the rule that the check is about."""
    assert is_turned_down(CHECKS[name], broken_subject(BROKEN[name]))


@pytest.mark.parametrize("name", [name for name in CHECKS if name not in BROKEN_OTHERWISE])
def test_the_same_check_lets_a_sound_broker_pass(name: str) -> None:
    """What turns a broken broker down is the rule, not this scaffold."""
    subject = replace(broken_subject(MemoryBroker), deadline_seconds=5)
    assert not is_turned_down(CHECKS[name], subject)


def test_the_death_of_a_member_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that never takes anything back from a process that is gone is turned down."""
    monkeypatch.setattr(_embedded_sqlite, "_WAKE", "SELECT ?, ?")
    subject = replace(sqlite_subject(tmp_path), deadline_seconds=3)
    with pytest.raises(ContractBroken, match="nothing came"):
        asyncio.run(CHECKS["what_a_dead_process_held_comes_to_another"](lambda: subject))


def test_a_password_in_a_message_is_noticed() -> None:
    """A broker that repeats its whole URL is turned down."""
    memory.server_of("user:s3cret@nowhere").kill()
    subject = replace(memory_subject(), unreachable=lambda: MemoryBroker("memory://user:s3cret@nowhere"))
    with pytest.raises(ContractBroken, match="password"):
        asyncio.run(CHECKS["who_can_not_be_reached_is_said_without_the_password"](lambda: subject))


def test_a_broker_that_is_entered_where_nothing_is_is_noticed() -> None:
    """Entering has to fail there."""
    subject = replace(memory_subject(), unreachable=MemoryBroker)
    with pytest.raises(ContractBroken, match="entered where nothing is"):
        asyncio.run(CHECKS["who_can_not_be_reached_is_said_without_the_password"](lambda: subject))


def test_a_complaint_says_what_is_wrong() -> None:
    """Whoever writes an adapter reads what was found and what was expected."""
    name = "what_is_parked_is_kept_with_its_reason"
    with pytest.raises(ContractBroken, match=r"the reason: 'no such article.*' instead of 'no such article"):
        asyncio.run(CHECKS[name](lambda: broken_subject(BROKEN[name])))
