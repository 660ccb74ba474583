"""Times in words: ages, waits, clocks.

Owns the wording only; all times come in as epoch seconds and durations as seconds. Must not read a clock: what is "now"
is the caller's to say. Used by the list, the timeline and the advice.
"""

from __future__ import annotations

from datetime import UTC, datetime


def span(seconds: float) -> str:
    """Return a duration in its two largest units: 1d 4h, 3m 20s, 0.125s."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 10:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    whole = round(seconds)
    days, hours, minutes, left = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (left, "s")]
    first = next(at for at, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count)


def age(seconds: float) -> str:
    """Return how long ago, in the largest unit alone: 4s, 3m, 2h, 5d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def wait(wake_at: float | None, now: float) -> str:
    """Return when something is due."""
    if wake_at is None:
        return "-"
    return "due" if wake_at <= now else f"in {age(wake_at - now)}"


def day(at: float) -> str:
    """Return the date, UTC."""
    return _moment(at).strftime("%Y-%m-%d")


def clock(at: float) -> str:
    """Return the time of day with milliseconds, UTC."""
    return _moment(at).isoformat(sep=" ", timespec="milliseconds")[11:23]


def moment(at: float) -> str:
    """Return date and time, UTC."""
    return _moment(at).strftime("%Y-%m-%d %H:%M:%S UTC")


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
