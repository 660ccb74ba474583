"""The broker contract: named checks that together define what a broker does; each adapter passes them on a real server.

Whoever writes an adapter runs them in a framework of their own: `await check(make_subject)` for each of
`BROKER_CHECKS`, where `make_subject` gives a `BrokerSubject`; `NotOffered` means that the subject lacks what the check
is about. It must not import a test framework, and a check must not know which broker it is given. Called by tests.
"""

from __future__ import annotations

from atone.testing import _broker_ending_checks, _broker_publish_checks, _broker_run_checks, _broker_server_checks
from atone.testing._broker_lab import BrokerCheck, BrokerServer, BrokerSubject, ContractBroken, NotOffered

__all__ = ["BROKER_CHECKS", "BrokerCheck", "BrokerServer", "BrokerSubject", "ContractBroken", "NotOffered"]

BROKER_CHECKS: tuple[BrokerCheck, ...] = (
    *_broker_publish_checks.CHECKS,
    *_broker_ending_checks.CHECKS,
    *_broker_server_checks.CHECKS,
    *_broker_run_checks.CHECKS,
)
