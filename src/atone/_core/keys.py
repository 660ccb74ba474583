"""Idempotency keys: stable text that names one operation of one step of one saga.

Each part is length-prefixed, so ("a:b", "c") and ("a", "b:c") never meet; the attempt is left out, so every repeat,
worker and restart sends the same key. Action and compensation have different ones.
"""

from __future__ import annotations


def idempotency_key(tenant: str, saga_name: str, saga_id: str, step: str, operation: str) -> str:
    """Return the key for one operation; printable, and unambiguous whatever characters the parts hold."""
    of_saga = f"{len(tenant)}-{tenant}.{len(saga_name)}-{saga_name}.{len(saga_id)}-{saga_id}"
    return f"{of_saga}.{len(step)}-{step}.{len(operation)}-{operation}"
