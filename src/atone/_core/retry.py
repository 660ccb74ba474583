"""How long to wait before the next attempt, as data and a pure function.

Jitter is derived from the idempotency key and the attempt, so the same saga waits the same time in every engine
and every replay, while different sagas spread out. Called by `decide` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how fast an operation is repeated.

    `attempts` counts calls, so 1 means no repeat. Delays are seconds: `initial`, then times `factor`, at most
    `maximum`. `jitter` is the share of the delay that may be cut off (0 = none, 1 = full jitter).
    `alert_after` failed calls the saga is reported as struggling; it goes on.
    """

    attempts: int = 3
    initial: float = 0.5
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.5
    alert_after: int = 10

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"Retry.attempts is {self.attempts}; a call is made at least once, so give 1 or more.")
        if not (self.initial >= 0 and self.maximum >= 0 and self.factor >= 1 and 0 <= self.jitter <= 1):
            raise ValueError(
                "Retry needs initial >= 0, maximum >= 0, factor >= 1 and 0 <= jitter <= 1; correct the policy."
            )


def delay_seconds(retry: Retry, failures: int, seed: str) -> float:
    """Return the seconds to wait after the `failures`-th failed attempt (1-based); `seed` fixes the jitter."""
    # The exponent is capped because 2.0 ** 1100 overflows while every real maximum is reached long before.
    full = min(retry.maximum, retry.initial * retry.factor ** min(failures - 1, 64))
    digest = blake2b(f"{seed}\x1f{failures}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    return full * (1 - retry.jitter * share)
