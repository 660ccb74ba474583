"""Idempotency keys: stable text that names one operation of one step of one saga.

Each part is length-prefixed, so ("a:b", "c") and ("a", "b:c") never meet; the attempt is left out, so every repeat,
worker and restart sends the same key. Action and compensation have different ones.
"""

from __future__ import annotations


def idempotency_key(tenant: str, saga_name: str, saga_id: str, step: str, operation: str) -> str:
    """Return the key for one operation; printable, and unambiguous whatever characters the parts hold."""
    return f"{part_of_saga(tenant, saga_name, saga_id)}.{part_of_step(step, operation)}"


def part_of_saga(tenant: str, saga_name: str, saga_id: str) -> str:
    """Return the first part of every key of a saga, for who makes several."""
    return f"{len(tenant)}-{tenant}.{len(saga_name)}-{saga_name}.{len(saga_id)}-{saga_id}"


def part_of_step(step: str, operation: str) -> str:
    """Return the second part: after a dot it completes the key."""
    return f"{len(step)}-{step}.{len(operation)}-{operation}"
