"""The one error that the codec's hooks raise: its words are safe to show.

Must not carry a payload's value. Raised by `codec` and `integrations.pydantic`, turned into `PayloadError` by `codec`.
"""

from __future__ import annotations


class Refusal(ValueError):
    """A type's hook refuses a value; the text names types and fields only, so it is safe to show."""
