"""What SQLite's errors mean to a caller of the store: one table, and messages that end with the next move.

It must not swallow an error: what it does not know goes on, as a StoreError when it came from SQLite. Called by the
SQLite adapter's threads.
"""

from __future__ import annotations

import apsw

from atone.errors import StoreError, StoreUnavailable

# The row itself can't be stored: neighbours in the same group are not to blame.
DATA_ERRORS = (
    apsw.TooBigError,
    apsw.MismatchError,
    apsw.ConstraintError,
    apsw.RangeError,
    TypeError,
    ValueError,
    OverflowError,
)

_KNOWN: tuple[tuple[tuple[type[apsw.Error], ...], type[StoreError], str], ...] = (
    (
        (apsw.BusyError, apsw.LockedError, apsw.ProtocolError),
        StoreUnavailable,
        "{path} is locked by another process; nothing was written. Try again; if it stays locked, find who holds it.",
    ),
    (
        (apsw.FullError,),
        StoreUnavailable,
        "There is no space left for {path}; nothing was written. Free space on its disk, then try again.",
    ),
    (
        (apsw.ReadOnlyError, apsw.PermissionsError),
        StoreUnavailable,
        "{path} can't be written to; nothing was. Let this user write to the file and its folder, then try again.",
    ),
    (
        (apsw.IOError, apsw.NoMemError),
        StoreUnavailable,
        "Reading or writing {path} failed ({error}). Look after the disk, then try again.",
    ),
    (
        (apsw.CantOpenError,),
        StoreUnavailable,
        "{path} can't be opened. Make sure that its folder exists and that this user may write there, then try again.",
    ),
    ((apsw.NotADBError,), StoreError, "{path} is not an SQLite database. Name another file for the store."),
    (
        (apsw.CorruptError,),
        StoreError,
        "{path} is damaged ({error}). Stop every process that uses it and bring back a copy.",
    ),
    (
        (apsw.TooBigError,),
        StoreError,
        "This is too large for a row of {path}; nothing was written. Send less at once.",
    ),
)


def translated(error: BaseException, path: str) -> BaseException:
    """Return what to raise instead of `error`: the same, unless it came from SQLite."""
    if not isinstance(error, apsw.Error):
        return error
    kind, text = next(
        ((kind, text) for known, kind, text in _KNOWN if isinstance(error, known)),
        (StoreError, "SQLite failed on {path}: {error}. This should not happen; please report it with this text."),
    )
    better = kind(text.format(path=path, error=error))
    better.__cause__ = error
    return better
