"""What PostgreSQL's errors mean to a caller of the store: three questions, one table, and messages with the next move.

Only an error that the server itself has sent says anything about the outcome; after any other one the connection is
lost and the outcome unknown. It must not swallow an error. Called by the PostgreSQL adapter's connections and commits.
"""

from __future__ import annotations

from atone.errors import AtoneError, StoreError, StoreSchemaError, StoreUnavailable

_REPEATABLE = ("40001", "40P01")
_DATA_CLASSES = ("22", "23", "54")
_ENDINGS = ("08", "57P")
_PARAMETERS = ("22", "42601", "42602", "42704", "55P02")
_DRIVERS = frozenset({"asyncpg", "psycopg", "sqlalchemy"})

_LOST = (
    "The connection to {where} was lost ({error}); whether the last call was written is unknown. "
    "Send it again; if it stays lost, look after the server and the network."
)
_SILENT = "{where} did not answer in time; whether the last call was written is unknown. Send it again."
# The driver's own words about an address may quote anything of it, so they are not repeated.
_MISNAMED = (
    "The address of {where} is no usable one, or has a wrong parameter ({error}). Write "
    "postgresql://user:password@host:port/database, and percent-encode what is special in the password."
)
_MISTAKEN = (
    "{where} does not take a parameter of this address ({error}). Check what stands after the question mark, "
    "and percent-encode what is special in it: %26 for &."
)
_UNREACHED = "{where} can't be reached ({error}). Check the address, and that the server runs; then try again."
_UNMIGRATED = "The tables in {where} are not what this Atone expects ({error}). Migrate it first."
_FORBIDDEN = (
    "This user may not do that in {where} ({error}); nothing was written. Grant it the role atone_worker, "
    "or atone_owner to make and change tables."
)
_CALLERS = (
    "The connection that was given can't be used ({error}). If it is lost or closed, its transaction was rolled back "
    "and nothing is started. Connect again, and repeat the whole transaction."
)
_OTHER = "PostgreSQL refused this on {where}: {error}. This should not happen; please report it with this text."

# What begins like this was sent by the server. The longest beginning that fits counts.
_KNOWN: dict[str, tuple[type[StoreError], str]] = {
    "08": (StoreUnavailable, _LOST),
    "22": (StoreError, "PostgreSQL can't hold this ({error}); nothing was written. Send other values."),
    "23": (StoreError, "This does not fit what {where} holds ({error}); nothing was written. Look at what is there."),
    "25006": (
        StoreUnavailable,
        "{where} is read-only now; nothing was written. Try again; if it stays so, name the primary, or several hosts.",
    ),
    "25P02": (
        StoreError,
        "This transaction has failed already ({error}); nothing was started. Roll it back, and start within a new one.",
    ),
    "28": (StoreError, "{where} does not let this user in ({error}). Check the user and the password."),
    "3D": (StoreError, "{where}: there is no such database ({error}). Create it, or name another one."),
    "3F": (StoreSchemaError, _UNMIGRATED),
    "40": (StoreUnavailable, "{where} is busy with conflicting work ({error}); nothing was written. Try again."),
    "42501": (StoreError, _FORBIDDEN),
    "42703": (StoreSchemaError, _UNMIGRATED),
    "42883": (StoreSchemaError, _UNMIGRATED),
    "42P01": (StoreSchemaError, _UNMIGRATED),
    "53": (StoreUnavailable, "{where} is out of something it needs ({error}). Give it more, then try again."),
    "54": (StoreError, "This is too large for PostgreSQL ({error}); nothing was written. Send less at once."),
    "55P03": (StoreUnavailable, "A lock in {where} was not to be had in time; nothing was written. Try again."),
    "57": (StoreUnavailable, "{where} is stopping or starting ({error}). Send the last call again."),
    "57014": (StoreUnavailable, "{where} took too long and gave up ({error}); nothing was written. Try again."),
    "58": (StoreUnavailable, "{where} can't read or write its files ({error}). Look after its disk, then try again."),
    "XX": (StoreError, "{where} is damaged, or has a bug ({error}). Stop the workers and look after the database."),
}


def code_of(error: BaseException) -> str | None:
    """Return the SQLSTATE if the server itself has sent this error, whatever driver brought it."""
    original = getattr(error, "orig", None) or error
    code = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    if not isinstance(code, str):
        return None
    # asyncpg gives codes to some of its own errors too; only what came over the wire has a severity.
    is_own = _is_asyncpgs(original) and not getattr(original, "severity", None)
    return None if is_own else code


def keeps_the_connection(error: BaseException) -> bool:
    """Tell whether the connection is good for the next call: the server said no, or nothing was sent."""
    if isinstance(error, AtoneError) or is_unsendable(error):
        return True
    code = code_of(error)
    if code is None or getattr(error, "severity_en", None) in {"FATAL", "PANIC"}:
        return False
    return not code.startswith((*_ENDINGS, "25006"))


def is_unsendable(error: BaseException) -> bool:
    """Tell whether the driver could not even encode a value, so that nothing was sent."""
    return _is_asyncpgs(error) and isinstance(error, ValueError)


def is_repeatable(error: BaseException) -> bool:
    """Tell whether the same call may succeed when it is made again: nothing was written."""
    return code_of(error) in _REPEATABLE


def is_data_error(error: BaseException) -> bool:
    """Tell whether a value is to blame, which the database can't hold."""
    code = code_of(error)
    return is_unsendable(error) if code is None else code.startswith(_DATA_CLASSES)


def is_conflict(error: BaseException) -> bool:
    """Tell whether a row with such a key is there already."""
    return code_of(error) == "23505"


def is_birth_elsewhere(error: BaseException) -> bool:
    """Tell whether this waited too long for a transaction that gives birth to a saga of the same name."""
    return code_of(error) == "55P03" and "sagas_named" in (getattr(error, "context", None) or "")


def translated(error: BaseException, where: str) -> BaseException:
    """Return what to raise instead of `error`: the same, if it is none of a database's or of a network's."""
    if not _is_foreign(error):
        return error
    kind, text = _meaning(error)
    better = kind(text.format(where=where, error=str(error).partition("\n")[0] or type(error).__name__))
    better.__cause__ = error
    return better


def of_caller(error: BaseException, where: str) -> BaseException:
    """Return the same for an error on a connection of the caller's, whose transaction only the caller can repeat."""
    code = code_of(error)
    is_lost = isinstance(error, OSError | EOFError) or type(error).__module__.partition(".")[0] in _DRIVERS
    if not code.startswith(_ENDINGS) if code is not None else not is_lost:
        return translated(error, where)
    better = StoreUnavailable(_CALLERS.format(error=str(error).partition("\n")[0] or type(error).__name__))
    better.__cause__ = error
    return better


def unreached(error: BaseException, where: str) -> BaseException:
    """Return the same for a connection that could not be made; nothing that may quote the address comes along."""
    code = code_of(error)
    if isinstance(error, ValueError):  # the driver could not even read the address
        return StoreError(_MISNAMED.format(where=where, error=type(error).__name__))
    if code is not None and code.startswith(_PARAMETERS):
        return StoreError(_MISTAKEN.format(where=where, error=type(error).__name__))
    if code is not None or not _is_foreign(error):
        return translated(error, where)
    better = StoreUnavailable(_UNREACHED.format(where=where, error=str(error) or type(error).__name__))
    better.__cause__ = error
    return better


def _is_foreign(error: BaseException) -> bool:
    if isinstance(error, OSError | EOFError):  # a TimeoutError is one of the first
        return True
    return isinstance(error, Exception) and (code_of(error) is not None or _is_asyncpgs(error))


def _is_asyncpgs(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "asyncpg"


def _meaning(error: BaseException) -> tuple[type[StoreError], str]:
    code = code_of(error)
    if code is not None:
        fitting = [start for start in _KNOWN if code.startswith(start)]
        return _KNOWN[max(fitting, key=len)] if fitting else (StoreError, _OTHER)
    if is_unsendable(error):
        return _KNOWN["22"]
    if isinstance(error, TimeoutError):
        return StoreUnavailable, _SILENT
    return StoreUnavailable, _LOST
