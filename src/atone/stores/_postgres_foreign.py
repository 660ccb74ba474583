"""A caller's connection that leads to a PostgreSQL: the only kind that a start can join here.

Owns that refusal; how connections are told apart and asked is `atone._connections`' to know. Called by `start`, in the
caller's task, on the caller's connection.
"""

from __future__ import annotations

from atone._connections.face import Face, face_of

_KINDS = "an asyncpg, psycopg 3 or SQLAlchemy connection or session"


def foreign(connection: object) -> Face:
    """Return the face of a connection.

    Raises:
        TypeError: It is of a kind that can't be used, with the reason.
    """
    face = face_of(connection, _KINDS)
    if face.dialect != "postgresql":
        raise TypeError(
            f"This {type(connection).__qualname__} is connected to {face.dialect}, the sagas are elsewhere: "
            "one transaction can't cover both. Give one that is connected to the store's database."
        )
    return face
