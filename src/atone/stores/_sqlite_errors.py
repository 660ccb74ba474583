"""What SQLite's errors mean to a caller of the store: one table, and messages that end with the next move.

It must not swallow an error that it does not know: such a one goes on as it is. Called by the SQLite adapter's threads.
"""

from __future__ import annotations

import apsw

from atone.errors import AtoneError, StoreError, StoreUnavailable

# The row itself can't be stored: neighbours in the same batch are not to blame.
DATA_ERRORS = (
    apsw.TooBigError,
    apsw.MismatchError,
    apsw.ConstraintError,
    apsw.RangeError,
    TypeError,
    ValueError,
    OverflowError,
)

_UNAVAILABLE: tuple[tuple[tuple[type[apsw.Error], ...], str], ...] = (
    (
        (apsw.BusyError, apsw.LockedError),
        "{path} is locked by another process; nothing was written. It is tried again; if it stays so, find what holds it.",
    ),
    ((apsw.FullError,), "The disk of {path} is full; nothing was written. Free space on it, then it goes on."),
    (
        (apsw.ReadOnlyError, apsw.PermissionsError),
        "{path} can't be written to. Give this user write permission for the file and its folder.",
    ),
    (
        (apsw.IOError,),
        "Reading or writing {path} failed ({error}); what was last sent may be stored or not. Check the disk, then try again.",
    ),
    (
        (apsw.CantOpenError,),
        "{path} can't be opened. Make sure that its folder exists and that this user may write there.",
    ),
)
_BROKEN = (
    (apsw.NotADBError, "{path} is not an SQLite database. Name another file for the store."),
    (apsw.CorruptError, "{path} is damaged ({error}). Stop every process that uses it and restore it from a copy."),
)


def translated(error: apsw.Error, path: str) -> AtoneError | apsw.Error:
    """Return what to raise instead of `error`, which is `error` itself when nobody can do anything about it."""
    for kinds, text in _UNAVAILABLE:
        if isinstance(error, kinds):
            return StoreUnavailable(text.format(path=path, error=error))
    for kind, text in _BROKEN:
        if isinstance(error, kind):
            return StoreError(text.format(path=path, error=error))
    return error
