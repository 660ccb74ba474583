"""The store contract: named checks that together define what a store does; memory and SQLite pass them all.

Whoever writes an adapter runs them in a framework of their own: `await check(make_subject)` for each of `STORE_CHECKS`,
where `make_subject` gives a new `Subject`. It must not import a test framework, and a check must not know which store
it is given. Called by tests.
"""

from __future__ import annotations

from atone.testing import (
    _early_checks,
    _journal_checks,
    _lease_checks,
    _look_checks,
    _outbox_checks,
    _request_checks,
    _takeover_checks,
)
from atone.testing._subject import Check, ContractBroken, Joined, Subject

__all__ = ["STORE_CHECKS", "Check", "ContractBroken", "Joined", "Subject"]

STORE_CHECKS: tuple[Check, ...] = (
    *_journal_checks.CHECKS,
    *_lease_checks.CHECKS,
    *_takeover_checks.CHECKS,
    *_request_checks.CHECKS,
    *_early_checks.CHECKS,
    *_look_checks.CHECKS,
    *_outbox_checks.CHECKS,
)
